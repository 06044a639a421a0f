"""The two-expert decoder: two dense stacks that meet in every layer's attention."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from uno_jax.attention.dense import dense_attention
from uno_jax.attention.metadata import TokenMetadata, pairwise_visible
from uno_jax.models.adapters import ExpertAdapters
from uno_jax.models.config import DecoderConfig
from uno_jax.models.linear import Linear
from uno_jax.models.positions import apply_rope, rope_tables
from uno_jax.parallel.axes import constrain
from uno_jax.parallel.parameters import lookup

REMAT_POLICIES = {
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}


class Streams(NamedTuple):
    """The two token buffers on their way through the decoder."""

    understanding: Float[Array, "batch understanding features"]
    generation: Float[Array, "batch generation features"]


class Past(NamedTuple):
    """Tokens that were read before, as every layer's attention needs them; a key-value cache.

    Memory order means nothing: metadata says who may look at whom, and a slot of sample 0 is seen by nothing.
    """

    keys: Float[Array, "layers batch past kv_heads head_dim"]
    """Rotated to their positions, in the compute dtype, as the values are."""
    values: Float[Array, "layers batch past kv_heads head_dim"]
    metadata: TokenMetadata
    """Of every slot, `[batch, past]`."""


class Expert(nn.Module):
    """One expert's weights in one decoder layer. Biases on query, key and value only."""

    config: DecoderConfig
    dtype: Any
    adapted: bool = False
    """Whether the linear layers have low-rank adapters."""

    def setup(self) -> None:
        config, dense = self.config, functools.partial(Linear, dtype=self.dtype)
        norm = functools.partial(nn.RMSNorm, epsilon=config.norm_eps, dtype=jnp.float32)
        self.attention_norm, self.mlp_norm, self.query_norm, self.key_norm = norm(), norm(), norm(), norm()
        self.query = dense(config.num_heads * config.head_dim)
        self.key = dense(config.num_kv_heads * config.head_dim)
        self.value = dense(config.num_kv_heads * config.head_dim)
        self.output = dense(config.hidden_size, use_bias=False)
        self.gate = dense(config.mlp_size, use_bias=False)
        self.up = dense(config.mlp_size, use_bias=False)
        self.down = dense(config.hidden_size, use_bias=False)
        if self.adapted:
            self.adapters = ExpertAdapters(config, self.dtype)

    def linear(self, name: str, x: Float[Array, "*tokens inputs"]) -> Float[Array, "*tokens outputs"]:
        """The linear layer of that name, with its adapter."""
        y = getattr(self, name)(x)
        return y + self.adapters(name, x) if self.adapted else y

    def project(self, x: Float[Array, "batch tokens features"], cos: Array, sin: Array) -> tuple[Array, Array, Array]:
        """Query, key and value heads `[batch, tokens, heads, head_dim]`; q and k normed per head, then rotated."""
        y = self.attention_norm(x).astype(self.dtype)
        heads, kv_heads, head_dim = self.config.num_heads, self.config.num_kv_heads, self.config.head_dim
        query = self.linear("query", y).reshape(*x.shape[:-1], heads, head_dim)
        key, value = (self.linear(name, y).reshape(*x.shape[:-1], kv_heads, head_dim) for name in ("key", "value"))
        query = constrain(query, "batch", "tokens", "heads", None)
        key, value = (constrain(x, "batch", "tokens", "kv_heads", None) for x in (key, value))
        query = apply_rope(self.query_norm(query), cos, sin).astype(self.dtype)
        key = apply_rope(self.key_norm(key), cos, sin).astype(self.dtype)
        return query, key, value

    def finish(
        self, x: Float[Array, "batch tokens features"], attended: Array
    ) -> Float[Array, "batch tokens features"]:
        """Output projection and SwiGLU MLP, each with its residual."""
        x = x + self.linear("output", attended.reshape(*x.shape[:-1], self.config.num_heads * self.config.head_dim))
        y = self.mlp_norm(x).astype(self.dtype)
        inner = constrain(nn.silu(self.linear("gate", y)) * self.linear("up", y), "batch", "tokens", "mlp")
        return constrain(x + self.linear("down", inner), "batch", "tokens", None)


class DecoderLayer(nn.Module):
    """One layer: each expert computes its own tokens only; keys and values of both are concatenated.

    They are sown as `keys_values` in the collection `past`, which costs nothing where it is not asked for.
    """

    config: DecoderConfig
    dtype: Any

    @nn.compact
    def __call__(
        self,
        streams: Streams,
        rope: tuple[Array, Array],
        mask: Bool[Array, "batch queries keys"],
        past: tuple[Array, Array] | None,
    ) -> tuple[Streams, None]:
        understanding = Expert(self.config, self.dtype, name="understanding")
        generation = Expert(self.config, self.dtype, self.config.adapter_rank > 0, name="generation")
        split = streams.understanding.shape[1]
        cos, sin = rope
        first = understanding.project(streams.understanding, cos[:, :split], sin[:, :split])
        second = generation.project(streams.generation, cos[:, split:], sin[:, split:])
        query, key, value = (jnp.concatenate(pair, axis=1) for pair in zip(first, second, strict=True))
        self.sow("past", "keys_values", (key, value))
        if past is not None:
            key, value = (jnp.concatenate(pair, axis=1) for pair in zip(past, (key, value), strict=True))
        attended = dense_attention(query, key, value, mask)
        streams = Streams(
            understanding.finish(streams.understanding, attended[:, :split]),
            generation.finish(streams.generation, attended[:, split:]),
        )
        self.sow("intermediates", "hidden", streams)
        return streams, None


class Decoder(nn.Module):
    """Qwen2.5-shaped decoder with two experts, an embedding, and an untied vocabulary head.

    Layer parameters are stored stacked; the layers run as a scan whose `unroll` and rematerialisation policy are
    config fields, so that neither changes a checkpoint.
    """

    config: DecoderConfig
    dtype: Any = jnp.float32

    def setup(self) -> None:
        config = self.config
        layer = DecoderLayer
        if config.remat != "none":
            layer = nn.remat(layer, policy=REMAT_POLICIES[config.remat], prevent_cse=False)
        self.layers = nn.scan(
            layer,
            variable_axes={"params": 0, "intermediates": 0, "past": 0},
            split_rngs={"params": True},
            in_axes=(nn.broadcast, nn.broadcast, 0),
            length=config.num_layers,
            unroll=config.scan_unroll,
        )(config, self.dtype)
        self.embedding = self.param(
            "embedding", nn.initializers.normal(0.02), (config.vocab_size, config.hidden_size), jnp.float32
        )
        self.norm = ExpertNorms(config)
        self.head = Linear(config.vocab_size, use_bias=False, dtype=self.dtype)

    def embed(self, ids: Array) -> Float[Array, "batch tokens features"]:
        """Token ids `[batch, tokens]` to embeddings in the compute dtype."""
        return lookup(self.embedding, ids, (*self.path, "embedding")).astype(self.dtype)

    def __call__(
        self, streams: Streams, understanding: TokenMetadata, generation: TokenMetadata, past: Past | None = None
    ) -> Streams:
        """Final hidden states of both buffers, after the final norm of each token's expert.

        The tokens see, besides each other, those of `past`, as far as `visible` lets them.
        """
        return self.norm(self.residual_stream(streams, understanding, generation, past))

    def residual_stream(
        self, streams: Streams, understanding: TokenMetadata, generation: TokenMetadata, past: Past | None = None
    ) -> Streams:
        """What the layers leave, before the final norm."""
        metadata = _concatenated(understanding, generation)
        mask = pairwise_visible(metadata, metadata if past is None else _concatenated(past.metadata, metadata))
        rope = rope_tables(metadata.position, self.config.head_dim, self.config.rope_theta)
        streams = Streams(*(constrain(x.astype(self.dtype), "batch", "tokens", None) for x in streams))
        streams, _ = self.layers(streams, rope, mask, past and (past.keys, past.values))
        return streams

    def logits(self, hidden: Float[Array, "batch tokens features"]) -> Float[Array, "batch tokens vocab"]:
        """Vocabulary logits, float32."""
        return constrain(self.head(hidden).astype(jnp.float32), "batch", "tokens", "vocab")


def _concatenated(first: TokenMetadata, second: TokenMetadata) -> TokenMetadata:
    return TokenMetadata(*(jnp.concatenate(pair, axis=1) for pair in zip(first, second, strict=True)))


class ExpertNorms(nn.Module):
    """The final norm, one per expert; results are in the compute dtype of the streams."""

    config: DecoderConfig

    @nn.compact
    def __call__(self, streams: Streams) -> Streams:
        norm = functools.partial(nn.RMSNorm, epsilon=self.config.norm_eps, dtype=jnp.float32)
        return Streams(
            norm(name="understanding")(streams.understanding).astype(streams.understanding.dtype),
            norm(name="generation")(streams.generation).astype(streams.generation.dtype),
        )
