"""Pictures from noise: Euler steps along the predicted velocity, from t = 1 to t = 0."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from uno_jax.attention.metadata import NOISED
from uno_jax.batch import Batch
from uno_jax.models.config import ModelConfig
from uno_jax.models.unified import UnifiedModel
from uno_jax.objectives.draws import draw, shift_time

Params = Any
Velocity = Callable[[Array, Array], Array]


@dataclass(frozen=True)
class FlowConfig:
    """How a picture is sampled."""

    timesteps: int = 25
    """Times of the grid, both ends included: one step fewer (convention of the public sampler)."""
    time_shift: float = 1.0
    """t = shift * u / (1 + (shift - 1) * u) for u from 1 to 0 in equal steps."""
    text_scale: float = 1.0
    """Guidance by the prompt: velocity = without + scale * (with - without). Up to 1: none, and at half the cost."""


def time_grid(timesteps: int, shift: float) -> Float[np.ndarray, " timesteps"]:
    """The times that a sample passes through, from 1 to 0, float32."""
    return shift_time(np.linspace(1, 0, timesteps, dtype=np.float32), shift)


def integrate(
    velocity: Velocity,
    start: Float[Array, "batch latents features"],
    generated: Bool[Array, "batch latents"],
    times: Float[np.ndarray, " timesteps"],
) -> Float[Array, "batch latents features"]:
    """Euler steps of the generated tokens through `times`; all other tokens stay as they are, at time 0.

    `velocity(x, t)` takes all latents and the time of each token `[batch, latents]`.
    """

    def step(x: Array, interval: tuple[Array, Array]) -> tuple[Array, None]:
        now, then = interval
        moved = x + (then - now) * velocity(x, jnp.where(generated, now, 0.0))
        return jnp.where(generated[..., None], moved, x), None

    return jax.lax.scan(step, start, (jnp.asarray(times[:-1]), jnp.asarray(times[1:])))[0]


def sample_pictures(
    params: Params,
    batch: Batch,
    without_prompt: Batch | None,
    model: ModelConfig,
    config: FlowConfig,
    seed: int,
) -> Float[Array, "batch latents features"]:
    """The batch's latents with its noised targets sampled anew; a pure function, to be jitted.

    The noise, and the autoencoder's sample of context images, are those that the train step would draw with this seed:
    they follow from (seed, occurrence, image), so a sample does not depend on its place in the batch. What the batch
    holds as the targets' moments is not read.

    Args:
      params: of the model.
      batch: with moments. Captions and metaqueries, if it has any, change nothing.
      without_prompt: the same samples with their prompts left out, and the same generation buffer; read if
        `config.text_scale` is above 1. Both run in one forward pass.
      model: sizes of the model.
      config: how to sample.
      seed: of the noise.
    """
    draws = draw(batch, seed, 1.0, model.autoencoder)
    generated = batch.generation.role == NOISED
    start = jnp.where(generated[..., None], draws.noise, draws.latents)
    guided = without_prompt is not None and config.text_scale > 1
    if guided:
        batch = jax.tree.map(lambda *halves: jnp.concatenate(halves), batch, without_prompt)
    unified = UnifiedModel(model)
    batch = _with_vision_features(unified, params, batch)

    def velocity(x: Array, t: Array) -> Array:
        if not guided:
            return _velocity(unified, params, batch, x, t)
        both = _velocity(unified, params, batch, jnp.concatenate([x, x]), jnp.concatenate([t, t]))
        conditional, unconditional = jnp.split(both, 2)
        return unconditional + config.text_scale * (conditional - unconditional)

    return integrate(velocity, start, generated, time_grid(config.timesteps, config.time_shift))


def _velocity(unified: UnifiedModel, params: Params, batch: Batch, x: Array, t: Array) -> Array:
    predictions: Any = unified.apply({"params": params}, batch, x, t)
    return predictions.velocity


def _with_vision_features(unified: UnifiedModel, params: Params, batch: Batch) -> Batch:
    """The batch with features in the place of patches: they are the same in every step."""
    features: Any = unified.apply({"params": params}, batch, method="vision_features")
    return batch._replace(vit_patches=features[0], target_patches=features[1])
