"""All random numbers of a step: times, noise and the autoencoder's sample, keyed by the sample they belong to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Float, Int

from uno_jax.batch import Batch, TokenBatch, TokenSource
from uno_jax.models.autoencoder import sample_latents
from uno_jax.models.config import AutoencoderConfig

_TIME, _NOISE, _LATENT = range(3)  # purposes of random keys


class Draws(NamedTuple):
    """Clean latents, their noise, and the times of tokens; all float32."""

    latents: Float[Array, "batch latents latent_size"]
    noise: Float[Array, "batch latents latent_size"]
    latent_times: Float[Array, "batch latents"]
    caption_times: Float[Array, "batch captions"]
    """Time of the noised target that the caption describes."""
    query_times: Float[Array, "batch queries"]
    """Time of the noised target that the metaquery belongs to."""

    @property
    def noised(self) -> Float[Any, "batch latents latent_size"]:
        """Noised latents x_t = (1 - t) x_0 + t noise."""
        t = self.latent_times[..., None]
        return (1 - t) * self.latents + t * self.noise


def shifted_time(raw: Float[Array, "*tokens"], shift: float) -> Float[Array, "*tokens"]:
    """Maps normal numbers to t = shift * u / (1 + (shift - 1) * u), u = sigmoid(raw); minus infinity gives 0."""
    t: Array = shift_time(jax.nn.sigmoid(raw), shift)
    return t


def shift_time(u: Float[Any, "*times"], shift: float) -> Float[Any, "*times"]:
    """Shifts times (numpy or jax): shift * u / (1 + (shift - 1) * u). A shift above 1 favours times near noise."""
    return shift * u / (1 + (shift - 1) * u)


def draw(batch: Batch, seed: int, shift: float, autoencoder: AutoencoderConfig) -> Draws:
    """Draws all random numbers for a batch with moments, from the seed and each token's (occurrence, image, index).

    The latents are a sample from the autoencoder's moments, scaled by its config. No value depends on the place of a
    sample in the batch, its neighbours, the device, or the step.
    """
    times: Callable[[TokenSource], Array] = jax.vmap(jax.vmap(lambda source: _time(source, seed, shift)))
    features = batch.latent_moments.shape[-1] // 2
    sampled = _normals(batch.latent_source, batch.latent_index, seed, features, _LATENT)
    return Draws(
        latents=sample_latents(batch.latent_moments, sampled, autoencoder.scale, autoencoder.shift),
        noise=draw_noise(batch, seed, features),
        latent_times=batch.latent_time_scale * times(batch.latent_source),
        caption_times=times(batch.caption_source),
        query_times=times(batch.query_source),
    )


def draw_noise(batch: TokenBatch, seed: int, features: int) -> Float[Array, "batch latents features"]:
    """Draws only the noise, as in `draw`."""
    return _normals(batch.latent_source, batch.latent_index, seed, features, _NOISE)


def _image_key(source: TokenSource, seed: int) -> Array:
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), source.occurrence), source.image)


def _time(source: TokenSource, seed: int, shift: float) -> Array:
    return shifted_time(jax.random.normal(jax.random.fold_in(_image_key(source, seed), _TIME)), shift)


def _normals(
    source: TokenSource, index: Int[Any, "batch latents"], seed: int, features: int, purpose: int
) -> Float[Array, "batch latents features"]:
    """Draws normal numbers for every latent token, from its source, its index in the image, and the purpose."""

    def of_token(source: TokenSource, index: Array) -> Array:
        key = jax.random.fold_in(jax.random.fold_in(_image_key(source, seed), purpose), index)
        return jax.random.normal(key, (features,))

    return jax.vmap(jax.vmap(of_token))(source, index)
