"""Fixed position features: the 2-D sin-cos tables, the time features, and rotary position embedding."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

TIME_FEATURES = 256


def sincos_table_2d(side: int, features: int) -> Float[np.ndarray, "positions features"]:
    """Fixed table of a `side` x `side` grid, float32 `[side * side, features]`, indexed by `row * side + column`.

    The first half of the features encodes the column and the second half the row, each as [sin | cos] at frequencies
    10000 ** (-k / (features / 4)), as in the table that BAGEL's public checkpoint stores.

    Raises:
      ValueError: `features` is not a multiple of four.
    """
    line = _sincos_line(side, features)
    rows, columns = np.divmod(np.arange(side * side), side)
    return np.concatenate([line[columns], line[rows]], axis=-1)


def sincos_2d(positions: Int[Any, "*tokens"], side: int, features: int) -> Float[Array, "*tokens features"]:
    """Looks up rows of `sincos_table_2d`, without the table: at published sizes it has 58 MB, and its halves 0.5 MB.

    A gather from the whole table in the denoising loop also fails to compile for v6e with libtpu 0.0.50.1, which moves
    large gathers to the SparseCore.

    Raises:
      ValueError: `features` is not a multiple of four.
    """
    line = _sincos_line(side, features)
    rows, columns = jnp.divmod(positions, side)
    return jnp.concatenate([jnp.take(line, columns, axis=0), jnp.take(line, rows, axis=0)], axis=-1)


def _sincos_line(side: int, features: int) -> Float[np.ndarray, "side half"]:
    """Half of the features, for every row or column of a grid."""
    if features % 4:
        raise ValueError(f"a 2-D sin-cos table has {features} features: expected a multiple of 4")
    frequencies = 1.0 / 10000 ** (np.arange(features // 4, dtype=np.float64) / (features / 4))
    angles = np.arange(side, dtype=np.float64)[:, None] * frequencies
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=-1).astype(np.float32)


def time_features(t: Float[Array, "*tokens"]) -> Float[Array, "*tokens 256"]:
    """Features [cos | sin] of t in [0, 1] (not scaled by 1000) at frequencies exp(-ln(10000) * k / 128); float32."""
    half = TIME_FEATURES // 2
    frequencies = jnp.exp(-np.log(10000.0) * jnp.arange(half, dtype=jnp.float32) / half)
    angles = t.astype(jnp.float32)[..., None] * frequencies
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


def rope_tables(
    position: Int[Array, "*rows tokens"], head_dim: int, theta: float
) -> tuple[Float[Array, "*rows tokens head_dim"], Float[Array, "*rows tokens head_dim"]]:
    """Cosine and sine of the rotation angles of every position, float32, repeated for both halves of the head."""
    inverse = 1.0 / theta ** (np.arange(0, head_dim, 2, dtype=np.float32) / head_dim)
    angles = position.astype(jnp.float32)[..., None] * inverse
    angles = jnp.concatenate([angles, angles], axis=-1)
    return jnp.cos(angles), jnp.sin(angles)


def apply_rope(
    x: Float[Array, "*rows tokens heads head_dim"],
    cos: Float[Array, "*rows tokens head_dim"],
    sin: Float[Array, "*rows tokens head_dim"],
) -> Float[Array, "*rows tokens heads head_dim"]:
    """Applies RoPE to the two halves of each head (as in Qwen2 and BAGEL, not to interleaved pairs)."""
    first, second = jnp.split(x, 2, axis=-1)
    rotated = jnp.concatenate([-second, first], axis=-1)
    return x * cos[..., None, :] + rotated * sin[..., None, :]


def pixels_to_float(pixels: UInt8[Any, "*shape"]) -> Float[Array, "*shape"]:
    """Converts uint8 pixels to float32 in [-1, 1], as (x / 255 - 0.5) / 0.5 like BAGEL's public transforms."""
    return (jnp.asarray(pixels, jnp.float32) / 255.0 - 0.5) / 0.5
