"""Small autoencoders, and batches of pictures for them to encode."""

from __future__ import annotations

import functools

import jax
import numpy as np

from uno_jax.attention.metadata import TokenMetadata
from uno_jax.batch import BatchShape, PixelBatch, TokenSource, padding_batch
from uno_jax.models.config import AutoencoderConfig, ModelConfig, VisionConfig

FLUX = AutoencoderConfig(
    base_channels=32, channel_multipliers=(1, 1), num_residual_blocks=1, latent_channels=2, downsample=2
)
TRANSFORMER = AutoencoderConfig(
    kind="transformer",
    latent_channels=4,
    downsample=2,
    transformer=VisionConfig(8, num_layers=1, num_heads=2, mlp_size=8, patch_size=2, table_side=8),
)
PIXEL = AutoencoderConfig(kind="pixel", latent_channels=12, downsample=2)
SIDE = 4  # side of the latent position table
# (row, sample, image) -> pixels: two sizes, one of them three times. Both rows end in padding.
GRIDS = {(0, 1, 0): (1, 2), (0, 1, 1): (2, 1), (0, 2, 0): (1, 2), (1, 1, 0): (1, 2)}
TOKENS = 7


def model_config(autoencoder):
    return ModelConfig(autoencoder=autoencoder, latent_patch_size=2, max_latent_size=SIDE)


@functools.cache
def variables_of(autoencoder):
    """Returns random parameters, biases and scales included, so that each of them has an effect."""
    image = jax.ShapeDtypeStruct((1, 4, 4, 3), np.float32)
    shapes = jax.eval_shape(autoencoder.init, jax.random.key(0), image)
    generator = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: generator.normal(0, 0.1, leaf.shape).astype(np.float32), shapes)


def batch_of(images, config, tokens=TOKENS):
    """Makes a batch with the images in the generation buffer, in order, and all other regions empty."""
    side = config.pixels_per_token
    pixels = np.full((2, tokens, 3 * side**2), 77, np.uint8)
    sample, image, positions = (np.zeros((2, tokens), np.int32) for _ in range(3))
    used = [0, 0]
    for (row, sample_number, image_number), picture in images.items():
        rows, columns = picture.shape[0] // side, picture.shape[1] // side
        span = slice(used[row], used[row] + rows * columns)
        squares = picture.reshape(rows, side, columns, side, 3).transpose(0, 2, 1, 3, 4)
        pixels[row, span] = squares.reshape(rows * columns, -1)
        sample[row, span], image[row, span] = sample_number, image_number
        positions[row, span] = (np.arange(rows)[:, None] * SIDE + np.arange(columns)).reshape(-1)
        used[row] += rows * columns
    blank = padding_batch(BatchShape(2, 0, 0, 0, 0, tokens, patch_features=3, latent_features=2 * config.latent_size))
    return PixelBatch(
        **blank.shared()
        | {
            "generation": TokenMetadata(sample, *[np.zeros_like(sample)] * 5),
            "latent_source": TokenSource(np.zeros_like(sample), image, np.zeros_like(sample)),
            "latent_positions": positions,
        },
        latent_pixels=pixels,
    )


def pictures(config, grids=GRIDS):
    generator, side = np.random.default_rng(0), config.pixels_per_token
    return {
        key: generator.integers(0, 256, (rows * side, columns * side, 3), dtype=np.uint8)
        for key, (rows, columns) in grids.items()
    }
