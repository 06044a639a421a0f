"""Linear layers over all tokens of a batch at once."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
from jaxtyping import Array, Float


def token_product(
    x: Float[Array, "*tokens inputs"], kernel: Float[Array, "inputs outputs"], dimensions: Any, **settings: Any
) -> Float[Array, "*tokens outputs"]:
    """`x @ kernel` as one two-dimensional matrix product; stands in for `lax.dot_general` in `nn.Dense`.

    The result is the same. The weight gradient of a product with several token axes contracts all of them, for which
    XLA's CPU backend first writes transposed copies of the activations: an MLP's forward and backward pass took 1.3
    to 1.5 times as long (`benchmarks/token_product.py`).
    """
    del dimensions  # nn.Dense contracts the last axis of x with the first of the kernel
    flat = jax.lax.dot_general(x.reshape(-1, x.shape[-1]), kernel, (((1,), (0,)), ((), ())), **settings)
    return flat.reshape(*x.shape[:-1], kernel.shape[-1])


Linear = functools.partial(nn.Dense, dot_general=token_product)
"""`nn.Dense` through `token_product`; its parameters are `kernel` [inputs, outputs] and `bias`."""
