"""Linear layers over all tokens of a batch at once."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from uno_jax.parallel.axes import is_cut
from uno_jax.parallel.parameters import gathered


def token_product(
    x: Float[Array, "*tokens inputs"], kernel: Float[Array, "inputs outputs"]
) -> Float[Array, "*tokens outputs"]:
    """`x @ kernel`, as one two-dimensional matrix product where tokens are not cut over devices.

    The result is the same. The weight gradient of a product with several token axes contracts all of them, for which
    XLA's CPU backend first writes transposed copies of the activations: an MLP's forward and backward pass took 1.3
    to 1.5 times as long (`benchmarks/token_product.py`). Rows and tokens that are both cut make no one axis that a
    mesh can cut, so merging them would gather the tokens.
    """
    if is_cut("tokens"):
        return jax.lax.dot_general(x, kernel, (((x.ndim - 1,), (0,)), ((), ())))
    flat = jax.lax.dot_general(x.reshape(-1, x.shape[-1]), kernel, (((1,), (0,)), ((), ())))
    return flat.reshape(*x.shape[:-1], kernel.shape[-1])


class Linear(nn.Module):
    """`nn.Dense` through `token_product`: parameters `kernel` [inputs, outputs], placed by path, and `bias`.

    The kernel is gathered in the compute dtype, so that is what travels.
    """

    features: int
    use_bias: bool = True
    dtype: Any = jnp.float32
    kernel_init: Any = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: Float[Array, "*tokens inputs"]) -> Float[Array, "*tokens features"]:
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features), jnp.float32)
        kernel = gathered(kernel, (*self.path, "kernel"), self.dtype)
        y = token_product(x.astype(self.dtype), kernel)
        if not self.use_bias:
            return y
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,), jnp.float32)
        return y + bias.astype(self.dtype)
