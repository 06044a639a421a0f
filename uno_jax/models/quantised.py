"""Kernels in int8, with one float32 scale for each output: half the memory of bfloat16, for weights not being trained.

A layer multiplies by the integers in the compute dtype, which holds them exactly, and scales its outputs. So only
weights are rounded, to 254 steps between the two largest magnitudes of an output.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int8

from uno_jax.parallel.parameters import tree_shardings

Weights = Literal["plain", "int8"]
"""Format of the large kernels: in a floating-point dtype, or int8 with scales."""

QUANTISED_PARTS = ("decoder", "vision", "connector")
"""Parts with large kernels. The autoencoder has under 1% of the weights, and its activations decide its memory."""

LARGEST = 127

Originals = Mapping[tuple[str, ...], Any]
"""Kernels before they were quantised, by path."""


def quantise(
    kernel: Float[Array, "*layers inputs outputs"],
) -> tuple[Int8[Array, "*layers inputs outputs"], Float[Array, "*layers outputs"]]:
    """Rounds a kernel to multiples of one scale for each output, its largest magnitude / 127. Returns both.

    A value that is not finite makes its scale so, and with it the outputs of the layer.
    """
    exact = kernel.astype(jnp.float32)
    scale = jnp.max(jnp.abs(exact), axis=-2) / LARGEST
    rounded = jnp.round(exact / jnp.where(scale > 0, scale, 1.0)[..., None, :])
    return rounded.astype(jnp.int8), scale


def quantised(params: Any, of: Callable[[Any], tuple[Any, Any]] = quantise) -> Any:
    """Replaces each large kernel by its integers, and adds `kernel_scale` beside it; not those of adapters.

    `of` converts one kernel.
    """
    flat = flatten_dict(params)
    converted = {}
    for path, leaf in flat.items():
        if path[0] in QUANTISED_PARTS and path[-1] == "kernel" and "adapters" not in path:
            converted[path], converted[(*path[:-1], "kernel_scale")] = of(leaf)
    return unflatten_dict(flat | converted)


def placed_quantised(params: Any, mesh: Mesh, *, free: bool = True) -> Any:
    """Quantises parameters where they are, usually in host memory, kernel by kernel, and places all on a mesh.

    With `free`, the original of each kernel is deleted.
    """

    convert = jax.jit(quantise)

    def once(kernel: jax.Array) -> tuple[Array, Array]:
        converted: tuple[Array, Array] = jax.block_until_ready(convert(kernel))
        if free:
            kernel.delete()
        return converted

    params = quantised(params, once)
    return jax.tree.map(jax.device_put, params, tree_shardings(params, mesh))


def with_originals(params: Any, originals: Originals) -> Any:
    """Puts back the kernels that `quantised` has replaced, and removes their scales."""
    if not originals:
        return params
    scales = {(*path[:-1], "kernel_scale") for path in originals}
    flat = {path: leaf for path, leaf in flatten_dict(params).items() if path not in scales}
    return unflatten_dict(flat | dict(originals))
