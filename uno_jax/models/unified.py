"""The unified model: a packed batch in, predictions of both experts out."""

from __future__ import annotations

import functools
import itertools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from uno_jax.attention.metadata import TokenMetadata
from uno_jax.batch import TokenBatch
from uno_jax.models.config import ModelConfig
from uno_jax.models.decoder import Decoder, KVCache, Streams
from uno_jax.models.linear import Linear
from uno_jax.models.positions import pixels_to_float, sincos_2d, time_features
from uno_jax.models.vision import Connector, VisionEncoder
from uno_jax.parallel.parameters import lookup

# With x_0 prediction the velocity is (x_t - x_0) / t; t is clamped to this minimum in the division.
SMALLEST_DIVISOR_TIME = 0.05


class Predictions(NamedTuple):
    """Model outputs that the losses read; float32."""

    velocity: Float[Array, "batch latents features"]
    text_logits: Float[Array, "batch text vocab"] | None
    """None if answers are not trained: the vocabulary head then skips context text."""
    caption_logits: Float[Array, "batch captions vocab"]
    query_prediction: Float[Array, "batch queries target_features"]
    query_target: Float[Array, "batch queries target_features"]
    """Features of the clean target, without gradient."""
    align_prediction: Float[Array, "batch latents vision_features"] | None = None
    """Output of the head of the align loss; None if the loss is not computed."""
    align_target: Float[Array, "batch latents vision_features"] | None = None
    """Vision features of the clean target at the place of each latent token, without gradient."""
    start_velocity: Float[Array, "batch latents features"] | None = None
    """Velocity of the model that the run started from, without gradient; None if no loss needs it."""


class Targets(NamedTuple):
    """Vision features of clean targets; float32, without gradient."""

    query: Float[Array, "batch queries target_features"]
    """Targets of the metaqueries."""
    align: Float[Array, "batch latents vision_features"] | None
    """Targets of the align loss; None if it is not computed."""


class TimestepEmbedder(nn.Module):
    """Two linear layers with a SiLU on the time features."""

    features: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, t: Float[Array, "*tokens"]) -> Float[Array, "*tokens features"]:
        x = Linear(self.features, dtype=self.dtype, name="fc1")(time_features(t))
        return Linear(self.features, dtype=self.dtype, name="fc2")(nn.silu(x))


class Metaqueries(nn.Module):
    """UNO's learned queries, and the head that maps their final states to vision features."""

    num_queries: int
    features: int
    target_features: int
    dtype: jnp.dtype

    def setup(self) -> None:
        self.table = self.param("table", nn.initializers.normal(0.02), (self.num_queries, self.features), jnp.float32)
        self.head = Linear(self.target_features, dtype=self.dtype)

    def embed(self, index: Int[Any, "batch queries"]) -> Float[Array, "batch queries features"]:
        """Looks up rows `index` of the table."""
        return lookup(self.table, index, (*self.path, "table"))

    def predict(self, hidden: Float[Array, "batch queries features"]) -> Float[Array, "batch queries target"]:
        """Predicted vision features, float32."""
        return self.head(hidden).astype(jnp.float32)


class AlignHead(nn.Module):
    """Two linear layers with a SiLU, from states of the generation expert to vision features."""

    target_features: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, hidden: Float[Array, "batch latents features"]) -> Float[Array, "batch latents target"]:
        """Predicted vision features, float32."""
        x = nn.silu(Linear(hidden.shape[-1], dtype=self.dtype, name="fc1")(hidden))
        return Linear(self.target_features, dtype=self.dtype, name="fc2")(x).astype(jnp.float32)


class UnifiedModel(nn.Module):
    """BAGEL's unified model with UNO's metaqueries. The arithmetic is that of BAGEL's public implementation."""

    config: ModelConfig

    def setup(self) -> None:
        config, features = self.config, self.config.decoder.hidden_size
        self.dtype = jnp.dtype(config.compute_dtype)
        self.decoder = Decoder(config.decoder, self.dtype)
        self.vision = VisionEncoder(config.vision, self.dtype)
        self.connector = Connector(features, self.dtype)
        self.latent_in = Linear(features, dtype=self.dtype)
        self.latent_out = Linear(config.latent_size, dtype=self.dtype)
        self.timestep_embedder = TimestepEmbedder(features, self.dtype)
        if config.num_metaqueries:
            target = config.vision.hidden_size if config.metaquery_target == "vision" else features
            self.metaqueries = Metaqueries(config.num_metaqueries, features, target, self.dtype)
        if config.align_layer:
            self.align_head = AlignHead(config.vision.hidden_size, self.dtype)

    def __call__(
        self,
        batch: TokenBatch,
        noised: Float[Array, "batch latents latent_size"],
        times: Float[Array, "#batch #latents"],
        *,
        answers: bool = False,
        align: bool = False,
    ) -> Predictions:
        """Predictions for a batch with the latents `noised`, which include clean ones at time 0; float32.

        Args:
          batch: the batch.
          noised: noised and clean latents.
          times: time of each latent token.
          answers: whether to compute the logits of context text.
          align: whether to compute prediction and target of the align loss. The model must have its head.
        """
        streams, targets = self.embed(batch, noised, times, align=align)
        if align:
            layer = self.config.align_layer
            hidden, states = self.decoder.with_states(streams, batch.understanding, batch.generation, layer)
        else:
            hidden, states = self.decoder(streams, batch.understanding, batch.generation), None
        text, captions, queries = self.split_regions(batch, hidden.understanding)
        return Predictions(
            velocity=self.velocity(hidden.generation, noised, times),
            text_logits=self.decoder.logits(text) if answers else None,
            caption_logits=self.decoder.logits(captions),
            query_prediction=self.metaqueries.predict(queries) if queries.shape[1] else targets.query,
            query_target=targets.query,
            align_prediction=None if states is None else self.align_head(states),
            align_target=targets.align,
        )

    def read(
        self,
        batch: TokenBatch,
        latents: Float[Array, "batch latents latent_size"],
        times: Float[Array, "#batch #latents"],
        cache: KVCache | None = None,
    ) -> Streams:
        """Final hidden states of a batch that follows `cache`. Its keys and values are sown in the collection `cache`.

        Captions and metaqueries of the batch are included.
        """
        streams, _ = self.embed(batch, latents, times)
        return self.decoder(streams, batch.understanding, batch.generation, cache)

    def read_text(
        self, ids: Int[Array, "batch tokens"], metadata: TokenMetadata, cache: KVCache
    ) -> Float[Array, "batch tokens vocab"]:
        """Next-token logits of tokens that follow `cache`; their keys and values are sown as in `read`."""
        text = self.decoder.embed(ids)
        streams = Streams(text, text[:, :0])
        hidden = self.decoder(streams, metadata, TokenMetadata(*(x[:, :0] for x in metadata)), cache)
        return self.decoder.logits(hidden.understanding)

    def denoise(
        self, target: TokenBatch, noised: Float[Array, "batch latents latent_size"], time: Array, cache: KVCache
    ) -> tuple[Float[Array, "batch latents latent_size"], Float[Array, "batch latents features"]]:
        """Velocity of a noised block that follows `cache`, and the sum of the layers' updates to its latents.

        Args:
          target: the block's two delimiters and its latents only.
          noised: x_t.
          time: t, `[1 or batch, 1]`.
          cache: the context, of which the block sees everything.
        """
        streams, _ = self.embed(target, noised, time)
        last = self.decoder.residual_stream(streams, target.understanding, target.generation, cache, all_valid=True)
        added = last.generation - streams.generation
        return self.velocity(self.decoder.norm(last).generation, noised, time), added

    def denoise_with(
        self, target: TokenBatch, noised: Float[Array, "batch latents latent_size"], time: Array, added: Array
    ) -> Float[Array, "batch latents latent_size"]:
        """Velocity for given updates `added` of the layers: `denoise` without running any layer."""
        streams, _ = self.embed(target, noised, time)
        last = Streams(streams.understanding, streams.generation + added.astype(self.dtype))
        return self.velocity(self.decoder.norm(last).generation, noised, time)

    def split_regions(self, batch: TokenBatch, hidden: Array) -> tuple[Array, Array, Array]:
        """Splits the text, caption and metaquery regions off the understanding buffer."""
        text = batch.text_ids.shape[1]
        captions = text + batch.vit_image.shape[1]
        queries = captions + batch.caption_ids.shape[1]
        return hidden[:, :text], hidden[:, captions:queries], hidden[:, queries:]

    def embed(self, batch: TokenBatch, noised: Array, times: Array, *, align: bool = False) -> tuple[Streams, Targets]:
        """Inputs of the first layer, and the targets of the losses; those of the align loss only if `align`."""
        config = self.config
        vit_features, target, *aligned = self.vision_features(batch, align=align)
        width, vit_side = config.decoder.hidden_size, config.vision.table_side
        regions = [self.decoder.embed(batch.text_ids)]
        if vit_features.shape[1]:
            regions.append(self.connector(vit_features) + sincos_2d(batch.vit_positions, vit_side, width))
        regions.append(self.decoder.embed(batch.caption_ids))
        if batch.query_index.shape[1]:
            queries = self.metaqueries.embed(batch.query_index)
            regions.append(queries + sincos_2d(batch.target_positions, vit_side, width))
            if config.metaquery_target == "connector":
                target = self.connector(target)
        latents = self.latent_in(noised.astype(self.dtype)) + self.timestep_embedder(times)
        latents = latents + sincos_2d(batch.latent_positions, config.max_latent_size, width)
        understanding = jnp.concatenate([region.astype(self.dtype) for region in regions], axis=1)
        fixed = [jax.lax.stop_gradient(x.astype(jnp.float32)) for x in (target, *aligned)]
        return Streams(understanding, latents.astype(self.dtype)), Targets(fixed[0], fixed[1] if align else None)

    def vision_features(self, batch: TokenBatch, *, align: bool = False) -> tuple[Array, ...]:
        """Vision features of the context patches, of the metaqueries' target patches and, if `align`, of latent tokens.

        The encoder processes the pixels of all together, in one packed sequence per row. Float patches are precomputed
        features, and returned unchanged.
        """
        patches = [batch.vit_patches, batch.target_patches]
        positions = [batch.vit_positions, batch.target_positions]
        images = [batch.vit_image, batch.target_image]
        if align:
            assert batch.align_patches is not None, "the batch has no aligned patches"
            assert batch.align_image is not None
            # The grids of latent tokens and their patches are the same, but the position tables have other sides.
            row, column = jnp.divmod(batch.latent_positions, self.config.max_latent_size)
            patches.append(batch.align_patches)
            positions.append(row * self.config.vision.table_side + column)
            images.append(batch.align_image)
        if jnp.issubdtype(batch.target_patches.dtype, jnp.floating):
            return tuple(patches)
        ends = list(itertools.accumulate(image.shape[1] for image in images))
        if not ends[-1]:
            return tuple(jnp.zeros((*image.shape, self.config.vision.hidden_size)) for image in images)
        features = self.vision(
            pixels_to_float(jnp.concatenate(patches, axis=1)),
            jnp.concatenate(positions, axis=1),
            functools.reduce(_continued, images),
        )
        return tuple(features[:, end - image.shape[1] : end] for end, image in zip(ends, images, strict=True))

    def velocity(self, hidden: Array, noised: Array, times: Array) -> Float[Array, "batch latents latent_size"]:
        """Predicted velocity noise - x_0, float32, for either parametrisation of the output projection."""
        output = self.latent_out(hidden).astype(jnp.float32)
        if self.config.prediction == "velocity":
            return output
        return (noised - output) / jnp.maximum(times, SMALLEST_DIVISOR_TIME)[..., None]


def _continued(first: Int[Array, "batch _"], second: Int[Array, "batch _"]) -> Int[Array, "batch _"]:
    """Concatenates image numbers of patches. Those of `second` continue from the last of `first`, row by row."""
    last = jnp.max(first, axis=1, keepdims=True) if first.shape[1] else 0
    return jnp.concatenate([first, jnp.where(second > 0, second + last, 0)], axis=1)
