"""Distances between predictions and targets, one value per token."""

from __future__ import annotations

from typing import Any, assert_never

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from uno_jax.objectives.config import VisualLoss


def cross_entropy(logits: Float[Array, "*tokens vocab"], labels: Int[Any, "*tokens"]) -> Float[Array, "*tokens"]:
    """Computes -log p(label), float32."""
    chosen = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - chosen


def visual_distance(
    prediction: Float[Array, "*tokens features"], target: Float[Array, "*tokens features"], kind: VisualLoss
) -> Float[Array, "*tokens"]:
    """Computes 1 - cosine, the mean squared difference, or the mean smooth L1 (quadratic below 1), float32."""
    if kind == "cosine":
        product = jnp.sum(prediction * target, axis=-1)
        return 1 - product / (_norm(prediction) * _norm(target))
    difference = jnp.abs(prediction - target)
    if kind == "mse":
        return jnp.mean(jnp.square(difference), axis=-1)
    if kind == "smooth_l1":
        return jnp.mean(jnp.where(difference < 1, 0.5 * jnp.square(difference), difference - 0.5), axis=-1)
    assert_never(kind)


def _norm(x: Array) -> Array:
    # Clamped under the root, so that a zero vector has a zero gradient instead of NaN.
    return jnp.sqrt(jnp.maximum(jnp.sum(jnp.square(x), axis=-1), 1e-16))
