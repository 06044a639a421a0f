"""Encodes the latent images of a packed batch, each at its own size, before the train step."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float32, Int, UInt8

from uno_jax.batch import Batch, PixelBatch, TokenBatch
from uno_jax.models.autoencoder import PixelAutoencoder, patchify_latents, unpatchify_latents
from uno_jax.models.config import ModelConfig
from uno_jax.models.picture_groups import encode_in_groups, mesh_of
from uno_jax.models.positions import pixels_to_float
from uno_jax.parallel.axes import constrain, on_mesh
from uno_jax.parallel.mesh import replicated, row_parts

# Maximum number of pixels to encode at once: more need more memory and gain no speed.
PIXELS_AT_ONCE = 1024 * 1024


def encode_batch(
    autoencoder: nn.Module,
    params: Any,
    batch: PixelBatch | Batch,
    config: ModelConfig,
    *,
    pixels_at_once: int = PIXELS_AT_ONCE,
) -> Batch:
    """Replaces the pixels of a batch with the autoencoder's moments.

    This function runs on the host. It finds the images of the batch, and dispatches one jitted program per image size
    and number of images, without waiting for it. The number is padded to a power of two per device, so that few
    programs are compiled. Each image is encoded at its own size, because padding would change its latents.

    The programs run on the devices of `params`, which must be local: each host has other images. On a mesh
    (`parallel.mesh.host_mesh`), the images are sharded like rows.

    Args:
      autoencoder: from `make_autoencoder`.
      params: its parameters (empty for the pixel autoencoder).
      batch: this host's batch, numpy arrays. A batch with precomputed moments is returned unchanged.
      config: sizes of the model.
      pixels_at_once: maximum number of pixels to encode at once per device. It changes memory, not results.

    Returns:
      The batch with moments: patchified mean, then patchified log-variance; 0 for padding.

    Raises:
      ValueError: the tokens of an image do not form a complete grid, or the pixels have the wrong width; the message
        names the place.
    """
    if isinstance(batch, Batch):
        return batch
    pixels = batch.latent_pixels
    width = 3 * config.pixels_per_token**2
    if pixels.shape[-1] != width:
        raise ValueError(
            f"latent_pixels has shape {tuple(pixels.shape)}: expected {config.pixels_per_token} * "
            f"{config.pixels_per_token} * 3 = {width} values per token"
        )
    batch_rows, tokens, _ = pixels.shape
    if isinstance(autoencoder, PixelAutoencoder):
        # It encodes each latent independently, so every token can be an image of its own.
        grids = {(1, 1): np.flatnonzero(np.asarray(batch.generation.sample) > 0)[:, None]}
    else:
        grids = image_grids(batch, config.max_latent_size)
    mesh = mesh_of(params)
    devices, everywhere = row_parts(mesh), replicated(mesh)
    # Placed on the devices before the loop: each program is compiled once, and the pixels are transferred once.
    moments = jnp.zeros((batch_rows * tokens, 2 * config.latent_size), jnp.float32, device=everywhere)
    flat_pixels = jax.device_put(pixels.reshape(batch_rows * tokens, width), everywhere)
    for (rows, columns), places in grids.items():
        if len(places):
            each = _power_of_two(-(-len(places) // devices))
            together = max(pixels_at_once // (rows * columns * config.pixels_per_token**2), 1)
            together = devices * min(each, 1 << together.bit_length() - 1)
            places = _pad(places, devices * each, nowhere=batch_rows * tokens)
            moments = _encode_images(
                moments, flat_pixels, params, places, autoencoder, config, rows, columns, together, mesh
            )
    return Batch(**batch.shared(), latent_moments=moments.reshape(batch_rows, tokens, 2 * config.latent_size))


def encode_pictures(
    autoencoder: nn.Module,
    params: Any,
    pictures: Sequence[UInt8[np.ndarray, "_height _width 3"]],
    config: ModelConfig,
    *,
    pixels_at_once: int = PIXELS_AT_ONCE,
    most_at_once: int = 32,
) -> list[Float32[np.ndarray, "_rows _columns _moments"]]:
    """Returns the moments of pictures, as `encode_batch` gives them for each latent token.

    They are encoded in groups (`encode_in_groups`), sharded over the devices of `params` as in `encode_batch`.

    Args:
      autoencoder: from `make_autoencoder`.
      params: its parameters.
      pictures: pictures whose sides are multiples of `config.pixels_per_token`.
      config: sizes of the model.
      pixels_at_once: maximum number of pixels of a group per device. It changes memory and speed.
      most_at_once: maximum number of pictures of a group per device.
    """
    mesh = mesh_of(params)
    return encode_in_groups(
        pictures,
        config.pixels_per_token,
        lambda stack: _encode_stack(stack, params, autoencoder, config, mesh),
        mesh,
        pixels_at_once=pixels_at_once,
        most_at_once=most_at_once,
    )


def image_grids(batch: TokenBatch, side: int) -> dict[tuple[int, int], Int[np.ndarray, "_images _tokens"]]:
    """Finds the images of a batch, by grid (rows, columns).

    Returns the indices of each image's tokens, row by row, in the generation buffer flattened over batch rows. An image
    is a run of tokens with the same row, sample, image number and noised block. Its grid follows from its position ids
    (row * `side` + column).

    Raises:
      ValueError: a run is not a complete grid in row-by-row order.
    """
    generation, source = batch.generation, batch.latent_source
    numbers = tuple(np.asarray(x) for x in (generation.sample, source.image, generation.block))
    sample, image, _ = numbers
    positions = np.asarray(batch.latent_positions)
    grids: dict[tuple[int, int], list[np.ndarray]] = {}
    for row in range(sample.shape[0]):
        change = np.any([np.diff(number[row]) != 0 for number in numbers], axis=0)
        bounds = [0, *(np.flatnonzero(change) + 1), sample.shape[1]]
        for start, stop in itertools.pairwise(bounds):
            if start == stop or sample[row, start] == 0:
                continue
            run = positions[row, start:stop]
            rows, columns = run.max() // side + 1, (run % side).max() + 1
            complete = (np.arange(rows)[:, None] * side + np.arange(columns)).reshape(-1)
            if not np.array_equal(run, complete):
                raise ValueError(
                    f"row {row}, tokens {start} to {stop - 1} (sample {sample[row, start]}, latent image "
                    f"{image[row, start]}): {stop - start} tokens with positions up to row {rows - 1} and column "
                    f"{columns - 1}: expected a complete grid in row-by-row order"
                )
            places = row * sample.shape[1] + np.arange(start, stop)
            grids.setdefault((int(rows), int(columns)), []).append(places)
    return {grid: np.stack(places).astype(np.int32) for grid, places in sorted(grids.items())}


def _power_of_two(count: int) -> int:
    """Rounds up to a power of two."""
    return 1 << (count - 1).bit_length()


def _pad(places: np.ndarray, count: int, nowhere: int) -> np.ndarray:
    """Pads to `count` images whose tokens have the out-of-range index `nowhere`: reads are clipped, writes dropped."""
    padding = np.full((count - len(places), places.shape[1]), nowhere)
    return np.concatenate([places, padding]).astype(np.int32)


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def _encode_stack(
    pictures: UInt8[Array, "images height width 3"],
    params: Any,
    autoencoder: nn.Module,
    config: ModelConfig,
    mesh: Mesh,
) -> Float[Array, "images tokens twice_latent_size"]:
    """Returns the moments of pictures of one size, sharded like rows over `mesh`."""
    with on_mesh(mesh):
        images = constrain(pixels_to_float(pictures), "batch", None, None, None)
        return constrain(_token_moments(images, params, autoencoder, config), "batch", None, None)


def _token_moments(
    images: Float[Array, "images height width 3"], params: Any, autoencoder: nn.Module, config: ModelConfig
) -> Float[Array, "images tokens twice_latent_size"]:
    """Returns the moments of each latent token: patchified mean, then patchified log-variance."""
    encoded: Any = autoencoder.apply({"params": params}, images, method="encode")
    halves = jnp.split(encoded, 2, axis=-1)
    return jnp.concatenate([patchify_latents(half, config.latent_patch_size) for half in halves], axis=-1)


@functools.partial(jax.jit, static_argnums=(4, 5, 6, 7, 8, 9), donate_argnums=0)
def _encode_images(
    moments: Float[Array, "places twice_latent_size"],
    pixels: UInt8[Array, "places pixels"],
    params: Any,
    places: Int[Array, "images tokens"],
    autoencoder: nn.Module,
    config: ModelConfig,
    rows: int,
    columns: int,
    together: int,
    mesh: Mesh,
) -> Float[Array, "places twice_latent_size"]:
    """Writes the moments of images of one grid (`rows` x `columns` tokens) to their places in `moments`.

    Encodes `together` images at a time, sharded like rows over `mesh`.
    """
    count, tokens = places.shape

    @on_mesh(mesh)
    def encode(places: Array) -> Array:
        places = constrain(places, "batch", None)
        squares = pixels_to_float(jnp.take(pixels, places, axis=0, mode="clip"))
        images = unpatchify_latents(squares, rows, columns, config.pixels_per_token)
        return _token_moments(images, params, autoencoder, config)

    tokens_encoded = jax.lax.map(encode, places.reshape(count // together, together, tokens))
    written = moments.at[places.reshape(-1)].set(tokens_encoded.reshape(count * tokens, -1), mode="drop")
    with on_mesh(mesh):
        return constrain(written, None, None)
