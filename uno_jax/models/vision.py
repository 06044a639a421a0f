"""The SigLIP vision encoder over packed patches, and the connector to the decoder's width."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from uno_jax.attention.attend import Visibility, attend, visibility
from uno_jax.attention.metadata import whole_images
from uno_jax.models.config import VisionConfig
from uno_jax.models.decoder import REMAT_POLICIES
from uno_jax.models.linear import Linear
from uno_jax.parallel.axes import constrain
from uno_jax.parallel.parameters import lookup


class VisionLayer(nn.Module):
    """One pre-norm transformer layer with biases everywhere and tanh GELU."""

    config: VisionConfig
    dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch patches features"], seen: Visibility
    ) -> tuple[Float[Array, "batch patches features"], None]:
        features, heads = self.config.hidden_size, self.config.num_heads
        dense = functools.partial(Linear, dtype=self.dtype, kernel_init=nn.initializers.xavier_uniform())
        # Two-pass variance, because E[x^2] - E[x]^2 is not accurate enough to match the original.
        norm = functools.partial(nn.LayerNorm, epsilon=self.config.norm_eps, dtype=jnp.float32, use_fast_variance=False)
        y = norm(name="attention_norm")(x).astype(self.dtype)
        query, key, value = (
            dense(features, name=name)(y).reshape(*x.shape[:-1], heads, features // heads)
            for name in ("query", "key", "value")
        )
        query = constrain(query, "batch", "tokens", "heads", None)
        key, value = (constrain(x, "batch", "tokens", "kv_heads", None) for x in (key, value))
        (attended,) = attend((query,), (key,), (value,), seen)
        x = x + dense(features, name="output")(attended.reshape(x.shape))
        y = norm(name="mlp_norm")(x).astype(self.dtype)
        y = constrain(nn.gelu(dense(self.config.mlp_size, name="fc1")(y), approximate=True), "batch", "tokens", "mlp")
        return constrain(x + dense(features, name="fc2")(y), "batch", "tokens", None), None


class VisionEncoder(nn.Module):
    """SigLIP over packed patches of images of any size, as in BAGEL's public implementation.

    The parameters of all layers are stacked. `scan_unroll`, `remat` and `attention` of the config change speed and
    memory, but not checkpoints.
    """

    config: VisionConfig
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        patches: Float[Array, "batch patches pixels"],
        positions: Int[Array, "batch patches"],
        image: Int[Array, "batch patches"],
    ) -> Float[Array, "batch patches features"]:
        """Features of every patch after the final norm, in the compute dtype.

        Args:
          patches: flattened (row, column, channel) pixels in [-1, 1].
          positions: row * table_side + column of the patch in its image, the index of the learned table.
          image: number of the image in its row, from 1; a patch attends within its image only. 0 is padding, which is
            invisible and has finite but meaningless features.
        """
        config = self.config
        table = self.param(
            "position_table",
            nn.initializers.normal(config.hidden_size**-0.5),
            (config.table_side**2, config.hidden_size),
            jnp.float32,
        )
        x = Linear(config.hidden_size, dtype=self.dtype, name="patch_embedding")(patches)
        x = x + lookup(table, positions, (*self.path, "position_table")).astype(self.dtype)
        x = constrain(x, "batch", "tokens", None)
        metadata = (whole_images(image),)
        seen = visibility(metadata, metadata, config.attention, self.dtype)
        layer = VisionLayer
        if config.remat != "none":
            layer = nn.remat(layer, policy=REMAT_POLICIES[config.remat], prevent_cse=False)
        layers = nn.scan(
            layer,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=nn.broadcast,
            length=config.num_layers,
            unroll=config.scan_unroll,
        )
        x, _ = layers(config, self.dtype, name="layers")(x, seen)
        norm = nn.LayerNorm(epsilon=config.norm_eps, dtype=jnp.float32, use_fast_variance=False, name="norm")
        features: Array = norm(x)
        return features.astype(self.dtype)


class Connector(nn.Module):
    """Maps vision features to the decoder's width: two linear layers with a tanh GELU."""

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*patches vision_features"]) -> Float[Array, "*patches features"]:
        x = nn.gelu(Linear(self.features, dtype=self.dtype, name="fc1")(x), approximate=True)
        return Linear(self.features, dtype=self.dtype, name="fc2")(x)
