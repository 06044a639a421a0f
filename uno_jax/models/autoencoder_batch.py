"""Encodes the latent images of a packed batch, each at its own size, before the train step."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Float, Int, UInt8

from uno_jax.batch import Batch, PixelBatch, TokenBatch
from uno_jax.models.autoencoder import PixelAutoencoder, patchify_latents, unpatchify_latents
from uno_jax.models.config import ModelConfig
from uno_jax.models.positions import pixels_to_float
from uno_jax.parallel.axes import constrain, on_mesh
from uno_jax.parallel.mesh import MeshConfig, make_mesh, replicated, row_parts

# Pixels that the encoder works on at once: more in flight need more memory and gain no speed.
PIXELS_AT_ONCE = 1024 * 1024


def encode_batch(
    autoencoder: nn.Module,
    params: Any,
    batch: PixelBatch | Batch,
    config: ModelConfig,
    *,
    pixels_at_once: int = PIXELS_AT_ONCE,
) -> Batch:
    """Replaces the pixels of a batch by the autoencoder's moments.

    A host function: it finds the images of the batch, and runs one jitted program per image size and number of images
    (padded to a power of two for each device, so that few programs are compiled). Each image is encoded at its own
    size, because padding would change its latents. The programs are dispatched and not waited for. They run where
    `params` lie, which must be this host alone, for what images there are differs from host to host; where that is a
    mesh (`parallel.mesh.host_mesh`), each part of it that has rows of its own encodes some of the images.

    Args:
      autoencoder: from `make_autoencoder`.
      params: its parameters (empty for the pixel autoencoder).
      batch: of this host, numpy arrays; one with moments (precomputed) comes back as it is.
      config: sizes of the model.
      pixels_at_once: images of more pixels than this together are encoded one after the other on a device (memory, not
        results).

    Returns:
      The batch with moments: patchified mean, then patchified log-variance; 0 for padding.

    Raises:
      ValueError: tokens of an image that are no whole grid, or pixels of the wrong width; the message says where.
    """
    if isinstance(batch, Batch):
        return batch
    pixels = batch.latent_pixels
    width = 3 * config.pixels_per_token**2
    if pixels.shape[-1] != width:
        raise ValueError(
            f"latent_pixels is {tuple(pixels.shape)}; expected pixels of {config.pixels_per_token} * "
            f"{config.pixels_per_token} * 3 = {width} values a token"
        )
    batch_rows, tokens, _ = pixels.shape
    if isinstance(autoencoder, PixelAutoencoder):
        # It never looks beyond a latent, so that every token may be encoded as an image of its own.
        grids = {(1, 1): np.flatnonzero(np.asarray(batch.generation.sample) > 0)[:, None]}
    else:
        grids = image_grids(batch, config.max_latent_size)
    mesh = _mesh_of(params)
    devices, everywhere = row_parts(mesh), replicated(mesh)
    # In their places from the first grid on: each program is compiled once, and pixels are sent once.
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


def image_grids(batch: TokenBatch, side: int) -> dict[tuple[int, int], Int[np.ndarray, "_images _tokens"]]:
    """Where the images of a batch lie, by grid (rows, columns): for each image the places of its tokens, row by row,
    in the generation buffer flattened over batch rows.

    An image is a run of tokens with one (row, sample, image); its grid follows from its position ids
    (row * `side` + column).

    Raises:
      ValueError: a run that is no whole grid in row-by-row order.
    """
    sample, image, positions = (
        np.asarray(x) for x in (batch.generation.sample, batch.latent_source.image, batch.latent_positions)
    )
    grids: dict[tuple[int, int], list[np.ndarray]] = {}
    for row in range(sample.shape[0]):
        change = (np.diff(sample[row]) != 0) | (np.diff(image[row]) != 0)
        bounds = [0, *(np.flatnonzero(change) + 1), sample.shape[1]]
        for start, stop in itertools.pairwise(bounds):
            if start == stop or sample[row, start] == 0:
                continue
            run = positions[row, start:stop]
            rows, columns = run.max() // side + 1, (run % side).max() + 1
            whole = (np.arange(rows)[:, None] * side + np.arange(columns)).reshape(-1)
            if not np.array_equal(run, whole):
                raise ValueError(
                    f"row {row}, tokens {start} to {stop - 1} (sample {sample[row, start]}, latent image "
                    f"{image[row, start]}): {stop - start} tokens with positions up to row {rows - 1} and column "
                    f"{columns - 1} are no whole grid in row-by-row order"
                )
            places = row * sample.shape[1] + np.arange(start, stop)
            grids.setdefault((int(rows), int(columns)), []).append(places)
    return {grid: np.stack(places).astype(np.int32) for grid, places in sorted(grids.items())}


def _mesh_of(params: Any) -> Mesh:
    """The mesh that the parameters lie on; of one device where they name none, or there are none."""
    for leaf in jax.tree.leaves(params):
        sharding = getattr(leaf, "sharding", None)
        if isinstance(sharding, NamedSharding) and isinstance(sharding.mesh, Mesh):
            return sharding.mesh
    return make_mesh(MeshConfig(), jax.local_devices()[:1])


def _power_of_two(count: int) -> int:
    """The next one."""
    return 1 << (count - 1).bit_length()


def _pad(places: np.ndarray, count: int, nowhere: int) -> np.ndarray:
    """So many images; the tokens of those that are added lie at `nowhere`: out of range, read as any, never written."""
    padding = np.full((count - len(places), places.shape[1]), nowhere)
    return np.concatenate([places, padding]).astype(np.int32)


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
    """Writes the moments of images of one grid (`rows` x `columns` tokens) to their places, `together` at a time, cut
    over the rows of `mesh`."""
    count, tokens = places.shape

    @on_mesh(mesh)
    def encode(places: Array) -> Array:
        places = constrain(places, "batch", None)
        squares = pixels_to_float(jnp.take(pixels, places, axis=0, mode="clip"))
        images = unpatchify_latents(squares, rows, columns, config.pixels_per_token)
        encoded: Any = autoencoder.apply({"params": params}, images, method="encode")
        halves = jnp.split(encoded, 2, axis=-1)
        return jnp.concatenate([patchify_latents(half, config.latent_patch_size) for half in halves], axis=-1)

    tokens_encoded = jax.lax.map(encode, places.reshape(count // together, together, tokens))
    written = moments.at[places.reshape(-1)].set(tokens_encoded.reshape(count * tokens, -1), mode="drop")
    with on_mesh(mesh):
        return constrain(written, None, None)
