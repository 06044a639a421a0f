"""The losses of every token, and their sum: flow matching, caption and answer cross-entropy, metaquery regression."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from uno_jax.batch import TASKS, Batch
from uno_jax.models.unified import Predictions
from uno_jax.objectives.config import LOSSES, ObjectiveConfig
from uno_jax.objectives.draws import Draws


class TokenLosses(NamedTuple):
    """One loss, token by token; `time` and `task` serve the metrics by time bin and by task."""

    value: Float[Array, "batch tokens"]
    counts: Bool[Array, "batch tokens"]
    """Which tokens have this loss."""
    time: Float[Array, "batch tokens"]
    task: Int[Array, "batch tokens"]


def flow_loss(predictions: Predictions, batch: Batch, draws: Draws) -> TokenLosses:
    """Mean over a latent token's features of (v - (noise - x_0)) ** 2 (design section 2; public flow loss)."""
    target = draws.noise - draws.latents
    value = jnp.mean(jnp.square(predictions.velocity - target), axis=-1)
    return TokenLosses(value, batch.latent_loss, draws.latent_times, batch.latent_source.task)


def cross_entropy(
    logits: Float[Array, "batch tokens vocab"], labels: Int[Array, "batch tokens"]
) -> Float[Array, "batch tokens"]:
    """-log p(label), float32."""
    chosen = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - chosen


def caption_loss(predictions: Predictions, batch: Batch, draws: Draws) -> TokenLosses:
    """Cross-entropy of the caption that the understanding expert reads off the noised target."""
    value = cross_entropy(predictions.caption_logits, batch.caption_labels)
    return TokenLosses(value, batch.caption_loss, draws.caption_times, batch.caption_source.task)


def answer_loss(predictions: Predictions, batch: Batch) -> TokenLosses:
    """Cross-entropy of answers in the context text; they have no time, and count as understanding."""
    assert predictions.text_logits is not None, "the vocabulary head did not run on context text"
    value = cross_entropy(predictions.text_logits, batch.text_labels)
    task = jnp.full_like(batch.text_ids, TASKS.index("understanding"))
    return TokenLosses(value, batch.text_loss, jnp.zeros_like(value), task)


def visual_distance(
    prediction: Float[Array, "*tokens features"], target: Float[Array, "*tokens features"], kind: str
) -> Float[Array, "*tokens"]:
    """1 - cosine, mean squared difference, or mean smooth-l1 (quadratic below 1) over the features, float32."""
    if kind == "cosine":
        product = jnp.sum(prediction * target, axis=-1)
        return 1 - product / (_norm(prediction) * _norm(target))
    difference = jnp.abs(prediction - target)
    if kind == "mse":
        return jnp.mean(jnp.square(difference), axis=-1)
    if kind == "smooth_l1":
        return jnp.mean(jnp.where(difference < 1, 0.5 * jnp.square(difference), difference - 0.5), axis=-1)
    raise ValueError(f"objective.visual_loss is {kind!r}; it must be cosine, mse or smooth_l1")


def _norm(x: Array) -> Array:
    # Clamped under the root, so that a zero vector has a zero gradient and not a NaN.
    return jnp.sqrt(jnp.maximum(jnp.sum(jnp.square(x), axis=-1), 1e-16))


def visual_loss(predictions: Predictions, batch: Batch, draws: Draws, kind: str) -> TokenLosses:
    """Distance of each metaquery's prediction to the vision features of its patch of the clean target."""
    value = visual_distance(predictions.query_prediction, predictions.query_target, kind)
    return TokenLosses(value, batch.query_loss, draws.query_times, batch.query_source.task)


def token_losses(
    predictions: Predictions, batch: Batch, draws: Draws, config: ObjectiveConfig
) -> dict[str, TokenLosses]:
    """Every loss that the batch can have, by name; `answer` only where its weight is not 0."""
    losses = {
        "flow": flow_loss(predictions, batch, draws),
        "caption": caption_loss(predictions, batch, draws),
        "visual": visual_loss(predictions, batch, draws, config.visual_loss),
    }
    if predictions.text_logits is not None:
        losses["answer"] = answer_loss(predictions, batch)
    return losses


def loss_counts(batch: Batch) -> dict[str, Float[Array, ""]]:
    """How many tokens each loss has in the batch, any leading axes included: the denominators."""
    masks = (batch.latent_loss, batch.caption_loss, batch.query_loss, batch.text_loss)
    return {name: jnp.sum(mask, dtype=jnp.float32) for name, mask in zip(LOSSES, masks, strict=True)}


def reduce_losses(
    losses: dict[str, TokenLosses], counts: dict[str, Float[Array, ""]], config: ObjectiveConfig
) -> dict[str, Float[Array, ""]]:
    """Each loss as its weighted sum over tokens divided by `counts`, 0 where there are none.

    `counts` is of the whole global batch, all microbatches included, so accumulation, packing and sharding cannot
    change a loss. The weight over t multiplies the numerator only.
    """
    powers = {
        "flow": config.flow_time_power,
        "caption": config.caption_time_power,
        "visual": config.visual_time_power,
        "answer": 0.0,
    }
    reduced = {}
    for name, loss in losses.items():
        value = jnp.where(loss.counts, loss.value, 0.0)
        if powers[name]:
            value = value * (1 - loss.time) ** powers[name]
        reduced[name] = jnp.sum(value) / jnp.maximum(counts[name], 1.0)
    return reduced


def fixed_weights(config: ObjectiveConfig) -> dict[str, float]:
    """The weight of each loss as configured."""
    return {name: getattr(config, f"{name}_weight") for name in LOSSES}


def total_loss(reduced: dict[str, Array], weights: dict[str, Array | float]) -> Float[Array, ""]:
    """The combined objective: one scalar, one gradient."""
    return sum((weights[name] * value for name, value in reduced.items()), start=jnp.zeros((), jnp.float32))
