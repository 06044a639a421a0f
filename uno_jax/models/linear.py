"""Linear layers that merge the token axes of a batch."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int8

from uno_jax.parallel.axes import is_sharded
from uno_jax.parallel.parameters import gathered


def token_product(
    x: Float[Array, "*tokens inputs"], kernel: Float[Array, "inputs outputs"]
) -> Float[Array, "*tokens outputs"]:
    """Computes `x @ kernel`, as one two-dimensional matrix product unless tokens are sharded.

    The result is the same. With several token axes, the weight gradient contracts all of them, and XLA's CPU backend
    first writes transposed copies of the activations: the forward and backward pass of an MLP took 1.3 to 1.5 times as
    long (`benchmarks/token_product.py`). If both rows and tokens are sharded, the merged axis cannot be, and merging
    would gather the tokens.
    """
    if is_sharded("tokens"):
        return jax.lax.dot_general(x, kernel, (((x.ndim - 1,), (0,)), ((), ())))
    flat = jax.lax.dot_general(x.reshape(-1, x.shape[-1]), kernel, (((1,), (0,)), ((), ())))
    return flat.reshape(*x.shape[:-1], kernel.shape[-1])


class Linear(nn.Module):
    """`nn.Dense` with `token_product`: parameters `kernel` `[inputs, outputs]` and `bias` `[outputs]`.

    The kernel is sharded by its path. It is cast to the compute dtype before it is gathered, to transfer fewer bytes.
    An int8 kernel, with `kernel_scale` `[outputs]` beside it (`models/quantised.py`), is gathered before it is cast.
    """

    features: int
    use_bias: bool = True
    dtype: Any = jnp.float32
    kernel_init: Any = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: Float[Array, "*tokens inputs"]) -> Float[Array, "*tokens features"]:
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features), jnp.float32)
        if kernel.dtype == jnp.int8:
            y = self._quantised_product(x, kernel)
        else:
            kernel = gathered(kernel, (*self.path, "kernel"), self.dtype)
            y = token_product(x.astype(self.dtype), kernel)
        if not self.use_bias:
            return y
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,), jnp.float32)
        return y + bias.astype(self.dtype)

    def _quantised_product(
        self, x: Float[Array, "*tokens inputs"], kernel: Int8[Array, "inputs outputs"]
    ) -> Float[Array, "*tokens features"]:
        scale: Float[Array, " outputs"] = self.get_variable("params", "kernel_scale")
        # Otherwise the compiler may cast the kernels of all layers before the layer scan, and keep the copies.
        kernel = jax.lax.optimization_barrier(gathered(kernel, (*self.path, "kernel"), jnp.int8))
        y = token_product(x.astype(self.dtype), kernel.astype(self.dtype))
        return (y.astype(jnp.float32) * scale).astype(self.dtype)
