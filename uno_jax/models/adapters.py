"""Low-rank adapters on frozen linear layers (LoRA, arXiv 2106.09685)."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from uno_jax.models.config import DecoderConfig
from uno_jax.models.linear import Linear

ADAPTERS = "decoder/layers/generation/adapters"
"""Path of the adapters in the parameter tree."""

ADAPTED_LAYERS = ("query", "key", "value", "output", "gate", "up", "down")


class LowRank(nn.Module):
    """Computes `scale * x @ down @ up`. `up` is initialised to zero, so that a new adapter has no effect."""

    features: int
    rank: int
    scale: float
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "*tokens inputs"]) -> Float[Array, "*tokens features"]:
        within = Linear(self.rank, use_bias=False, dtype=self.dtype, name="down")(x)
        zeros = nn.initializers.zeros
        added = Linear(self.features, use_bias=False, dtype=self.dtype, kernel_init=zeros, name="up")(within)
        return added * jnp.asarray(self.scale, self.dtype)


class ExpertAdapters(nn.Module):
    """One adapter for every linear layer of an expert in a decoder layer, with the name of that linear layer."""

    config: DecoderConfig
    dtype: Any

    def setup(self) -> None:
        config = self.config

        def adapter(features: int) -> LowRank:
            return LowRank(features, config.adapter_rank, config.adapter_scale, self.dtype)

        self.query = adapter(config.num_heads * config.head_dim)
        self.key = adapter(config.num_kv_heads * config.head_dim)
        self.value = adapter(config.num_kv_heads * config.head_dim)
        self.output = adapter(config.hidden_size)
        self.gate = adapter(config.mlp_size)
        self.up = adapter(config.mlp_size)
        self.down = adapter(config.hidden_size)

    def __call__(self, name: str, x: Float[Array, "*tokens inputs"]) -> Float[Array, "*tokens features"]:
        """Term that the adapter adds to the output of the linear layer `name` for the input `x`."""
        added: Array = getattr(self, name)(x)
        return added


def merged_kernel(
    kernel: Float[Array | np.ndarray, "*layers inputs outputs"],
    down: Float[Array | np.ndarray, "*layers inputs rank"],
    up: Float[Array | np.ndarray, "*layers rank outputs"],
    scale: float,
) -> Float[Array, "*layers inputs outputs"]:
    """Folds an adapter into its kernel: equal outputs without the adapter, up to rounding; float32."""
    return jnp.asarray(kernel, jnp.float32) + scale * jnp.asarray(down, jnp.float32) @ jnp.asarray(up, jnp.float32)
