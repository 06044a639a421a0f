"""The losses: their functions, the table `LOSSES`, and their weighted sum.

To add a loss, write its function and its row here, and its fields in `ObjectiveConfig`. The train step, metrics,
held-out losses, tables and memory plans are derived from the table.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from uno_jax.batch import TASKS, TokenBatch
from uno_jax.models.unified import Predictions
from uno_jax.objectives.config import ObjectiveConfig
from uno_jax.objectives.constant import ConstantPredictor, label_entropy, mean_target_distance
from uno_jax.objectives.distances import cross_entropy, visual_distance
from uno_jax.objectives.draws import Draws


def flow_loss(
    predictions: Predictions, batch: TokenBatch, draws: Draws, config: ObjectiveConfig
) -> Float[Array, "batch latents"]:
    """Mean of (v - (noise - x_0)) ** 2 over the features of a latent token (the flow loss of BAGEL)."""
    target = draws.noise - draws.latents
    return jnp.mean(jnp.square(predictions.velocity - target), axis=-1)


def caption_loss(
    predictions: Predictions, batch: TokenBatch, draws: Draws, config: ObjectiveConfig
) -> Float[Array, "batch captions"]:
    """Cross-entropy of the caption that the understanding expert predicts from the noised target."""
    return cross_entropy(predictions.caption_logits, batch.caption_labels)


def visual_loss(
    predictions: Predictions, batch: TokenBatch, draws: Draws, config: ObjectiveConfig
) -> Float[Array, "batch queries"]:
    """Distance between the prediction of each metaquery and the vision features of its patch of the clean target."""
    return visual_distance(predictions.query_prediction, predictions.query_target, config.visual_loss)


def align_loss(
    predictions: Predictions, batch: TokenBatch, draws: Draws, config: ObjectiveConfig
) -> Float[Array, "batch latents"]:
    """Distance between the head's prediction from the noised target and the vision features of the clean target."""
    assert predictions.align_prediction is not None, "the head of the align loss did not run"
    assert predictions.align_target is not None
    return visual_distance(predictions.align_prediction, predictions.align_target, config.align_loss)


def anchor_loss(
    predictions: Predictions, batch: TokenBatch, draws: Draws, config: ObjectiveConfig
) -> Float[Array, "batch latents"]:
    """Mean of (v - v_start) ** 2 over the features of a latent token: the drift from the velocity of the start."""
    assert predictions.start_velocity is not None, "the starting model did not run"
    return jnp.mean(jnp.square(predictions.velocity - predictions.start_velocity), axis=-1)


def answer_loss(
    predictions: Predictions, batch: TokenBatch, draws: Draws, config: ObjectiveConfig
) -> Float[Array, "batch text"]:
    """Cross-entropy of answers in the context text."""
    assert predictions.text_logits is not None, "the vocabulary head did not run on context text"
    return cross_entropy(predictions.text_logits, batch.text_labels)


@dataclass(frozen=True)
class Tokens:
    """A kind of token that a loss applies to."""

    mask: Callable[[TokenBatch], Bool[Array, "batch tokens"]]
    """Mask of the tokens with a loss. Their number in the global batch is the denominator."""
    time: Callable[[Draws], Float[Array, "batch tokens"]] | None
    """Time of the noised image of each token, in [0, 1]; None for tokens without time."""
    task: Callable[[TokenBatch], Int[Array, "batch tokens"]]
    """Index into TASKS of each token."""
    dataset: Callable[[TokenBatch], Int[Array, "batch tokens"] | None]
    """Index of the dataset of each token in the mixture; None without a mixture."""


def _aligned(batch: TokenBatch) -> Bool[Any, "batch latents"]:
    return jnp.zeros_like(batch.latent_loss) if batch.align_image is None else batch.align_image > 0


LATENTS = Tokens(
    mask=lambda batch: batch.latent_loss,
    time=lambda draws: draws.latent_times,
    task=lambda batch: batch.latent_source.task,
    dataset=lambda batch: batch.latent_source.dataset,
)
CAPTIONS = Tokens(
    mask=lambda batch: batch.caption_loss,
    time=lambda draws: draws.caption_times,
    task=lambda batch: batch.caption_source.task,
    dataset=lambda batch: batch.caption_source.dataset,
)
QUERIES = Tokens(
    mask=lambda batch: batch.query_loss,
    time=lambda draws: draws.query_times,
    task=lambda batch: batch.query_source.task,
    dataset=lambda batch: batch.query_source.dataset,
)
ALIGNED = Tokens(mask=_aligned, time=LATENTS.time, task=LATENTS.task, dataset=LATENTS.dataset)
ANSWERS = Tokens(
    mask=lambda batch: batch.text_loss,
    time=None,
    task=lambda batch: jnp.full_like(batch.text_ids, TASKS.index("understanding")),
    dataset=lambda batch: batch.text_dataset,
)


Need = Literal["answers", "align", "start"]
"""Outputs that are computed on request: logits of context text; prediction and target of the align loss; velocity of
the model that the run started from."""


@dataclass(frozen=True)
class Loss:
    """A row of the table of losses."""

    name: str
    """Name in metrics and checkpoints."""
    label: str
    """Name in printed tables."""
    function: Callable[[Predictions, TokenBatch, Draws, ObjectiveConfig], Float[Array, "batch tokens"]]
    """Computes the loss of every token, float32. Values outside the mask are ignored."""
    tokens: Tokens
    """Kind of token that the loss applies to."""
    weight: str
    """Field of `ObjectiveConfig` with the weight in the total."""
    time_power: str | None = None
    """Field of `ObjectiveConfig` with the power of the weight over t. None: no such weight."""
    supervision: bool = False
    """Whether it supervises the noised target, in addition to flow matching.

    Its gradient norm is measured, and the field with its name in `BalanceConfig` balances it against the flow loss.
    """
    always: bool = False
    """Whether it is computed even with weight 0, for metrics."""
    needs: Need | None = None
    """Output that it needs and that is not computed otherwise."""
    constant: ConstantPredictor | None = None
    """The best constant predictor, for comparison."""

    def weight_in(self, config: ObjectiveConfig) -> float:
        """The configured weight."""
        return float(getattr(config, self.weight))

    def time_power_in(self, config: ObjectiveConfig) -> float:
        """The configured power of the weight over t; 0 for a loss without one."""
        return getattr(config, self.time_power) if self.time_power else 0.0

    def balance_in(self, config: ObjectiveConfig) -> float:
        """The configured fraction of the flow loss's gradient norm; 0 for a fixed weight."""
        return getattr(config.balance, self.name) if self.supervision else 0.0


LOSSES = (
    Loss(
        name="flow",
        label="flow matching",
        function=flow_loss,
        tokens=LATENTS,
        weight="flow_weight",
        time_power="flow_time_power",
        always=True,
    ),
    Loss(
        name="caption",
        label="caption",
        function=caption_loss,
        tokens=CAPTIONS,
        weight="caption_weight",
        time_power="caption_time_power",
        supervision=True,
        always=True,
        constant=functools.partial(label_entropy, labels=lambda batch: batch.caption_labels),
    ),
    Loss(
        name="visual",
        label="visual",
        function=visual_loss,
        tokens=QUERIES,
        weight="visual_weight",
        time_power="visual_time_power",
        supervision=True,
        always=True,
        constant=functools.partial(mean_target_distance, target="query", kind=lambda config: config.visual_loss),
    ),
    Loss(
        name="answer",
        label="answer",
        function=answer_loss,
        tokens=ANSWERS,
        weight="answer_weight",
        needs="answers",
        constant=functools.partial(label_entropy, labels=lambda batch: batch.text_labels),
    ),
    Loss(
        name="align",
        label="align",
        function=align_loss,
        tokens=ALIGNED,
        weight="align_weight",
        time_power="align_time_power",
        supervision=True,
        needs="align",
        constant=functools.partial(mean_target_distance, target="align", kind=lambda config: config.align_loss),
    ),
    Loss(
        name="anchor",
        label="anchor",
        function=anchor_loss,
        tokens=LATENTS,
        weight="anchor_weight",
        needs="start",
    ),
)
"""All losses, in the order of the terms of the total and of printed tables."""

SUPERVISION = tuple(loss for loss in LOSSES if loss.supervision)


def active_losses(config: ObjectiveConfig) -> tuple[Loss, ...]:
    """Returns the losses that a step computes."""
    return tuple(loss for loss in LOSSES if loss.always or loss.weight_in(config) or loss.balance_in(config))


def measured_losses(config: ObjectiveConfig) -> tuple[str, ...]:
    """Returns the losses whose gradient norms into the generation expert are measured: flow, and active supervision."""
    return tuple(loss.name for loss in active_losses(config) if loss.name == "flow" or loss.supervision)


def needs(config: ObjectiveConfig) -> frozenset[Need]:
    """Returns the outputs that the active losses need."""
    return frozenset(loss.needs for loss in active_losses(config) if loss.needs)


class TokenLosses(NamedTuple):
    """Values of one loss per token, with `time`, `task` and `dataset` for the metrics by each of them."""

    value: Float[Array, "batch tokens"]
    counts: Bool[Array, "batch tokens"]
    """Mask of the tokens with this loss."""
    time: Float[Array, "batch tokens"] | None
    """None for tokens without time."""
    task: Int[Array, "batch tokens"]
    dataset: Int[Array, "batch tokens"] | None = None
    """None without a mixture."""


def token_losses(
    predictions: Predictions, batch: TokenBatch, draws: Draws, config: ObjectiveConfig
) -> dict[str, TokenLosses]:
    """Computes the active losses, by name."""
    return {
        loss.name: TokenLosses(
            value=loss.function(predictions, batch, draws, config),
            counts=loss.tokens.mask(batch),
            time=loss.tokens.time(draws) if loss.tokens.time else None,
            task=loss.tokens.task(batch),
            dataset=loss.tokens.dataset(batch),
        )
        for loss in active_losses(config)
    }


def loss_counts(batch: TokenBatch) -> dict[str, Float[Array, ""]]:
    """Counts the tokens of each loss in the batch, over all leading axes: the denominators."""
    return {loss.name: jnp.sum(loss.tokens.mask(batch), dtype=jnp.float32) for loss in LOSSES}


def reduce_losses(
    losses: dict[str, TokenLosses], counts: dict[str, Float[Array, ""]], config: ObjectiveConfig
) -> dict[str, Float[Array, ""]]:
    """Reduces each loss to its weighted sum over tokens divided by `counts`; 0 without tokens.

    `counts` covers the global batch with all microbatches, so gradient accumulation, packing and sharding cannot change
    a loss. The weight over t multiplies the numerator only.
    """
    powers = {loss.name: loss.time_power_in(config) for loss in LOSSES}
    reduced = {}
    for name, loss in losses.items():
        value = jnp.where(loss.counts, loss.value, 0.0)
        if loss.time is not None and powers[name]:
            value = value * (1 - loss.time) ** powers[name]
        reduced[name] = jnp.sum(value) / jnp.maximum(counts[name], 1.0)
    return reduced


def fixed_weights(config: ObjectiveConfig) -> dict[str, float]:
    """Returns the configured weight of each loss."""
    return {loss.name: loss.weight_in(config) for loss in LOSSES}


def total_loss(reduced: dict[str, Array], weights: dict[str, Array | float]) -> Float[Array, ""]:
    """Weighted sum of the losses: one scalar and therefore one gradient."""
    return sum((weights[name] * value for name, value in reduced.items()), start=jnp.zeros((), jnp.float32))
