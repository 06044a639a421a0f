"""Autoencoders between images and latents: the FLUX autoencoder, and two for laptops, one without parameters.

All have the same two methods. `encode` returns the moments (mean | log-variance) of a Gaussian, from which
`sample_latents` draws scaled latents. `decode` maps scaled latents to pixels.
"""

from __future__ import annotations

from typing import Any, TypeAlias, assert_never

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from uno_jax.attention.attend import Attention, attend, visibility
from uno_jax.attention.metadata import whole_images
from uno_jax.batch import position_ids
from uno_jax.models.config import AutoencoderConfig
from uno_jax.models.vision import VisionEncoder

GROUP_NORM_EPS = 1e-6
GROUP_NORM_GROUPS = 32
# exp(0.5 * -60) is 1e-13, so that a sample equals the mean.
EXACT_LOG_VARIANCE = -60.0


Autoencoder: TypeAlias = "FluxAutoencoder | TransformerAutoencoder | PixelAutoencoder"


def make_autoencoder(config: AutoencoderConfig) -> Autoencoder:
    """Makes the autoencoder of `config.kind`.

    Raises:
      ValueError: the sizes contradict each other; the message names the field.
    """
    if config.kind == "flux":
        if config.downsample != 2 ** (len(config.channel_multipliers) - 1):
            raise ValueError(
                f"autoencoder.downsample is {config.downsample}, but {len(config.channel_multipliers)} levels of "
                f"autoencoder.channel_multipliers halve the image {len(config.channel_multipliers) - 1} times: "
                f"set downsample to {2 ** (len(config.channel_multipliers) - 1)}"
            )
        for multiplier in config.channel_multipliers:
            if config.base_channels * multiplier % GROUP_NORM_GROUPS:
                raise ValueError(
                    f"autoencoder.base_channels {config.base_channels} times multiplier {multiplier}: expected a "
                    f"multiple of {GROUP_NORM_GROUPS}, the number of groups of the group norms"
                )
        return FluxAutoencoder(config)
    if config.kind == "transformer":
        if config.transformer.patch_size != config.downsample:
            raise ValueError(
                f"autoencoder.transformer.patch_size is {config.transformer.patch_size}: expected "
                f"autoencoder.downsample, {config.downsample}, because a latent is written for each patch"
            )
        return TransformerAutoencoder(config)
    if config.kind == "pixel":
        if config.latent_channels != 3 * config.downsample**2:
            raise ValueError(
                f"autoencoder.latent_channels is {config.latent_channels}: expected 3 * {config.downsample}**2 = "
                f"{3 * config.downsample**2} for the pixel autoencoder with downsample {config.downsample}"
            )
        return PixelAutoencoder(config)
    assert_never(config.kind)


def sample_latents(
    moments: Float[Array, "*shape twice_channels"], noise: Float[Array, "*shape channels"], scale: float, shift: float
) -> Float[Array, "*shape channels"]:
    """Returns scaled latents `scale * (mean + exp(log_variance / 2) * noise - shift)`, float32.

    Moments come from `encode`, or patchified: the mean is the first half of the features in both.
    """
    mean, log_variance = jnp.split(moments.astype(jnp.float32), 2, axis=-1)
    return scale * (mean + jnp.exp(0.5 * log_variance) * noise - shift)


def patchify_latents(
    latents: Float[Array, "images height width channels"], patch: int
) -> Float[Array, "images tokens features"]:
    """Splits latents into patches row by row, each flattened (row, column, channel) with the channel fastest."""
    images, height, width, channels = latents.shape
    x = latents.reshape(images, height // patch, patch, width // patch, patch, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(images, -1, patch * patch * channels)


def unpatchify_latents(
    tokens: Float[Array, "images tokens features"], rows: int, columns: int, patch: int
) -> Float[Array, "images height width channels"]:
    """Inverse of `patchify_latents` for a grid of `rows` x `columns` tokens."""
    x = tokens.reshape(tokens.shape[0], rows, columns, patch, patch, -1)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(tokens.shape[0], rows * patch, columns * patch, -1)


class TransformerAutoencoder(nn.Module):
    """Two small transformers over square patches: one writes a latent for each patch, the other draws the patches.

    Latents have a mean of zero and a variance of one over their channels. The encoder adds no noise.
    """

    config: AutoencoderConfig

    def setup(self) -> None:
        sizes, patch = self.config.transformer, self.config.downsample
        self.encoder, self.decoder = VisionEncoder(sizes), VisionEncoder(sizes)
        self.to_latents, self.to_pixels = nn.Dense(self.config.latent_channels), nn.Dense(3 * patch**2)
        self.normalise = nn.LayerNorm(use_bias=False, use_scale=False, use_fast_variance=False)

    def __call__(self, images: Float[Array, "images height width 3"]) -> Float[Array, "images height width 3"]:
        """Encodes and decodes, so that `init` creates the parameters of both halves."""
        return _reconstruct(self, images)

    def encode(self, images: Float[Array, "images height width 3"]) -> Float[Array, "images rows columns moments"]:
        """Encodes images in [-1, 1] to moments with a variance of nearly zero.

        Raises:
          ValueError: a side is not a multiple of `downsample`, or the image has more patches along a side than
            `transformer.table_side`.
        """
        patch = self.config.downsample
        _check_sides(images, patch)
        rows, columns = images.shape[1] // patch, images.shape[2] // patch
        features = self.encoder(patchify_latents(images, patch), *self._places(len(images), rows, columns))
        mean = self.normalise(self.to_latents(features)).reshape(len(images), rows, columns, -1)
        return _exact_moments(mean)

    def decode(self, latents: Float[Array, "images rows columns channels"]) -> Float[Array, "images height width 3"]:
        """Decodes scaled latents to images, about [-1, 1] and not clipped."""
        count, rows, columns, channels = latents.shape
        latents = latents / self.config.scale + self.config.shift
        features = self.decoder(latents.reshape(count, -1, channels), *self._places(count, rows, columns))
        return unpatchify_latents(self.to_pixels(features), rows, columns, self.config.downsample)

    def _places(self, images: int, rows: int, columns: int) -> tuple[Array, Array]:
        """Returns the position of every patch, and the number of its image."""
        side = self.config.transformer.table_side
        if max(rows, columns) > side:
            raise ValueError(
                f"an image has {rows} x {columns} patches: the autoencoder has positions for {side} along each side "
                "(autoencoder.transformer.table_side)"
            )
        shape = (images, rows * columns)
        return jnp.broadcast_to(position_ids(rows, columns, side), shape), jnp.ones(shape, jnp.int32)


class PixelAutoencoder(nn.Module):
    """Lossless space-to-depth without parameters: a latent is the square of pixels under it."""

    config: AutoencoderConfig

    def __call__(self, images: Float[Array, "images height width 3"]) -> Float[Array, "images height width 3"]:
        """Encodes and decodes; `init` calls it, as for `FluxAutoencoder`."""
        return _reconstruct(self, images)

    def encode(self, images: Float[Array, "images height width 3"]) -> Float[Array, "images rows columns moments"]:
        """Encodes images in [-1, 1] to moments: the pixels as the mean, and a variance of nearly zero."""
        _check_sides(images, self.config.downsample)
        count, height, width, _ = images.shape
        size = self.config.downsample
        mean = patchify_latents(images, size).reshape(count, height // size, width // size, -1)
        return _exact_moments(mean)

    def decode(self, latents: Float[Array, "images rows columns channels"]) -> Float[Array, "images height width 3"]:
        """Decodes scaled latents to images, not clipped: in [-1, 1] if the latents came from such images."""
        count, rows, columns, channels = latents.shape
        latents = latents / self.config.scale + self.config.shift
        return unpatchify_latents(latents.reshape(count, -1, channels), rows, columns, self.config.downsample)


class FluxAutoencoder(nn.Module):
    """The FLUX autoencoder, channels last: convolutions, with self-attention at the lowest resolution."""

    config: AutoencoderConfig
    dtype: Any = jnp.float32

    def setup(self) -> None:
        self.encoder = FluxEncoder(self.config, self.dtype)
        self.decoder = FluxDecoder(self.config, self.dtype)

    def __call__(self, images: Float[Array, "images height width 3"]) -> Float[Array, "images height width 3"]:
        """Encodes and decodes, so that `init` creates the parameters of both halves."""
        return _reconstruct(self, images)

    def encode(self, images: Float[Array, "images height width 3"]) -> Float[Array, "images rows columns moments"]:
        """Encodes images in [-1, 1] to float32 moments.

        Raises:
          ValueError: a side is not a multiple of `downsample`.
        """
        _check_sides(images, self.config.downsample)
        return self.encoder(images).astype(jnp.float32)

    def decode(self, latents: Float[Array, "images rows columns channels"]) -> Float[Array, "images height width 3"]:
        """Decodes scaled latents to float32 images, about [-1, 1] and not clipped."""
        return self.decoder(latents / self.config.scale + self.config.shift).astype(jnp.float32)


def _reconstruct(autoencoder: Autoencoder, images: Array) -> Array:
    """Decodes the mean of the encoded images."""
    config = autoencoder.config
    moments = autoencoder.encode(images)
    no_noise = jnp.zeros((*moments.shape[:-1], config.latent_channels))
    return autoencoder.decode(sample_latents(moments, no_noise, config.scale, config.shift))


def _exact_moments(mean: Array) -> Array:
    """Returns moments of which a sample is the mean."""
    return jnp.concatenate([mean, jnp.full_like(mean, EXACT_LOG_VARIANCE)], axis=-1)


def _check_sides(images: Array, downsample: int) -> None:
    if images.ndim != 4 or images.shape[1] % downsample or images.shape[2] % downsample:
        raise ValueError(
            f"images have shape {tuple(images.shape)}: the autoencoder expects [count, height, width, 3] with sides "
            f"that are multiples of {downsample}"
        )


class FluxEncoder(nn.Module):
    """Encodes images to moments: levels that halve the sides, then the middle."""

    config: AutoencoderConfig
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "images height width 3"]) -> Float[Array, "images rows columns moments"]:
        config = self.config
        x = _conv(config.base_channels, self.dtype, "conv_in")(x)
        last = len(config.channel_multipliers) - 1
        for level, multiplier in enumerate(config.channel_multipliers):
            channels = config.base_channels * multiplier
            x = EncoderLevel(channels, config.num_residual_blocks, level < last, self.dtype, name=f"down_{level}")(x)
        x = Middle(config.attention, self.dtype, name="mid")(x)
        x = nn.silu(_norm("norm_out")(x)).astype(self.dtype)
        return _conv(2 * config.latent_channels, self.dtype, "conv_out")(x)


class FluxDecoder(nn.Module):
    """Decodes unscaled latents: the middle, then levels that double the sides. Level 0 is the last, at full size."""

    config: AutoencoderConfig
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "images rows columns channels"]) -> Float[Array, "images height width 3"]:
        config = self.config
        x = _conv(config.base_channels * config.channel_multipliers[-1], self.dtype, "conv_in")(x)
        x = Middle(config.attention, self.dtype, name="mid")(x)
        for level, multiplier in reversed(list(enumerate(config.channel_multipliers))):
            channels = config.base_channels * multiplier
            x = DecoderLevel(channels, config.num_residual_blocks + 1, level > 0, self.dtype, name=f"up_{level}")(x)
        x = nn.silu(_norm("norm_out")(x)).astype(self.dtype)
        return _conv(3, self.dtype, "conv_out")(x)


class EncoderLevel(nn.Module):
    """Residual blocks at one size, then (except in the last level) a convolution that halves the sides."""

    channels: int
    blocks: int
    downsample: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "images height width channels"]) -> Float[Array, "images rows columns outputs"]:
        for block in range(self.blocks):
            x = ResidualBlock(self.channels, self.dtype, name=f"block_{block}")(x)
        if self.downsample:
            # The original FLUX encoder pads right and bottom only.
            conv = nn.Conv(
                self.channels, (3, 3), strides=2, padding=((0, 1), (0, 1)), dtype=self.dtype, name="downsample"
            )
            x = conv(x)
        return x


class DecoderLevel(nn.Module):
    """Residual blocks at one size, then (except in level 0) nearest-neighbour doubling and a convolution."""

    channels: int
    blocks: int
    upsample: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "images height width channels"]) -> Float[Array, "images rows columns outputs"]:
        for block in range(self.blocks):
            x = ResidualBlock(self.channels, self.dtype, name=f"block_{block}")(x)
        if self.upsample:
            x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
            x = _conv(self.channels, self.dtype, "upsample")(x)
        return x


class Middle(nn.Module):
    """Residual block, self-attention over all positions of the image, residual block."""

    attention: Attention
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "images height width channels"]) -> Float[Array, "images rows columns outputs"]:
        x = ResidualBlock(x.shape[-1], self.dtype, name="block_1")(x)
        x = SpatialAttention(self.attention, self.dtype, name="attention")(x)
        return ResidualBlock(x.shape[-1], self.dtype, name="block_2")(x)


class ResidualBlock(nn.Module):
    """Twice norm, SiLU and convolution; a 1 x 1 convolution on the shortcut if the number of channels changes."""

    channels: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "images height width channels"]) -> Float[Array, "images rows columns outputs"]:
        y = _conv(self.channels, self.dtype, "conv1")(nn.silu(_norm("norm1")(x)).astype(self.dtype))
        y = _conv(self.channels, self.dtype, "conv2")(nn.silu(_norm("norm2")(y)).astype(self.dtype))
        if x.shape[-1] != self.channels:
            x = nn.Conv(self.channels, (1, 1), dtype=self.dtype, name="shortcut")(x)
        return x + y


class SpatialAttention(nn.Module):
    """Single-head self-attention over all positions of each image."""

    attention: Attention
    """Implementation, as in `AutoencoderConfig`."""
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "images height width channels"]) -> Float[Array, "images rows columns outputs"]:
        images, height, width, channels = x.shape
        y = _norm("norm")(x).astype(self.dtype)
        query, key, value = (
            nn.Conv(channels, (1, 1), dtype=self.dtype, name=name)(y).reshape(images, height * width, 1, channels)
            for name in ("query", "key", "value")
        )
        one_image = (whole_images(jnp.ones((1, 1), jnp.int32)),)
        seen = visibility(one_image, one_image, self.attention, self.dtype)
        (attended,) = attend((query,), (key,), (value,), seen)
        return x + nn.Conv(channels, (1, 1), dtype=self.dtype, name="output")(attended.reshape(x.shape))


def _conv(channels: int, dtype: Any, name: str) -> nn.Conv:
    return nn.Conv(channels, (3, 3), padding=1, dtype=dtype, name=name)


def _norm(name: str) -> nn.GroupNorm:
    return nn.GroupNorm(
        GROUP_NORM_GROUPS, epsilon=GROUP_NORM_EPS, dtype=jnp.float32, use_fast_variance=False, name=name
    )
