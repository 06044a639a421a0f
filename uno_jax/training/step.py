"""The train step: random draws, one forward pass, one combined gradient, one guarded update."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from uno_jax.batch import Batch, without_supervision
from uno_jax.models.adapters import ADAPTERS
from uno_jax.models.apart import stacked
from uno_jax.models.config import ModelConfig
from uno_jax.models.unified import UnifiedModel
from uno_jax.objectives.breakdown import loss_sums
from uno_jax.objectives.config import ObjectiveConfig
from uno_jax.objectives.draws import Draws, draw
from uno_jax.objectives.losses import (
    LOSSES,
    SUPERVISION,
    fixed_weights,
    loss_counts,
    measured_losses,
    needs,
    reduce_losses,
    token_losses,
    total_loss,
)
from uno_jax.training.limits import LimitsConfig, spike_metrics, with_loss
from uno_jax.training.optimizer import OptimizerConfig, ema_decay, learning_rate_schedule, make_optimizer
from uno_jax.training.state import ADDED_PARTS, Params, TrainState, merge, partition

Metrics = dict[str, Array]
Tree = TypeVar("Tree")


@dataclass(frozen=True)
class StepConfig:
    """Config of a step."""

    model: ModelConfig
    objective: ObjectiveConfig
    optimizer: OptimizerConfig
    steps: int
    seed: int
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    datasets: tuple[str, ...] = ()
    """Names of the datasets of a mixture, in its order, whose losses are metrics of their own."""


def draw_for(batch: Batch, config: StepConfig) -> Draws:
    """Draws the step's times and noise for an encoded batch."""
    return draw(batch, config.seed, config.objective.time_shift, config.model.autoencoder)


def losses_of(
    params: Params, batch: Batch, draws: Draws, config: StepConfig, anchor: Params | None = None
) -> dict[str, Any]:
    """Returns the token losses of a batch, by name.

    `anchor` holds the leaves in which the starting model differs from `params`, if a loss needs that model.
    """
    requested, apply = needs(config.objective), UnifiedModel(config.model).apply
    predict = functools.partial(apply, answers="answers" in requested, align="align" in requested)
    predictions: Any = predict({"params": params}, batch, draws.noised, draws.latent_times)
    if "start" in requested:
        assert anchor is not None, "the leaves of the starting model are missing"
        start = {"params": jax.lax.stop_gradient(merge(params, anchor))}
        at_start: Any = apply(start, without_supervision(batch), draws.noised, draws.latent_times)
        predictions = predictions._replace(start_velocity=at_start.velocity)
    return token_losses(predictions, batch, draws, config.objective)


def loss_weights(gradient_norms: dict[str, Array], objective: ObjectiveConfig) -> dict[str, Array | float]:
    """Returns the current loss weights.

    With a configured and measured balance, the weight of a supervision loss makes its gradient norm into the generation
    expert that fraction of the flow loss's. Otherwise it is the configured weight.
    """
    weights: dict[str, Array | float] = dict(fixed_weights(objective))
    flow = gradient_norms["flow"] * objective.flow_weight
    for loss in SUPERVISION:
        if fraction := loss.balance_in(objective):
            norm = gradient_norms[loss.name]
            measured = (norm > 0) & (flow > 0)
            weights[loss.name] = jnp.where(measured, fraction * flow / jnp.maximum(norm, 1e-20), weights[loss.name])
    return weights


def make_train_step(config: StepConfig) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Returns the train step, a pure function to be jitted with the state donated.

    The rows of the batch, `[rows, ...]`, are split into `accumulation` microbatches. Losses are divided by the token
    counts of all microbatches, so the update equals that of the full batch. A non-finite loss or gradient is never
    applied, nor is a spike of the loss, if the config names a reaction to it.

    Metrics: `loss`, each loss and its time bins, tasks and datasets, `weight/<loss>`, `gradient_norm`, `learning_rate`,
    `finite`, `latched`, `skipped`, and those of `spike_metrics`.
    """
    optimizer = make_optimizer(config.optimizer, config.steps)
    schedule = learning_rate_schedule(config.optimizer, config.steps)
    accumulation = config.optimizer.accumulation

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        counts = loss_counts(batch)
        weights = loss_weights(state.gradient_norms, config.objective)

        def objective(trainable: Params, micro: Batch) -> tuple[Array, tuple[dict[str, Array], dict[str, Any]]]:
            draws = draw_for(micro, config)
            losses = losses_of(merge(trainable, state.frozen), micro, draws, config, state.anchor)
            reduced = reduce_losses(losses, counts, config.objective)
            return total_loss(reduced, weights), (reduced, loss_sums(losses, config.datasets))

        def gradient(micro: Batch) -> tuple[Any, Params]:
            value, gradients = jax.value_and_grad(objective, has_aux=True)(state.trainable, micro)
            return value, _float32(gradients)

        (loss, (reduced, sums)), gradients = _sum_over_microbatches(gradient, batch, accumulation)
        gradients = _warm_up_mask(gradients, _updates(state), config.optimizer)
        norm = optax.global_norm(gradients)
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        spikes = spike_metrics(loss, state.recent_losses, config.limits)
        spike = finite & spikes.get("spike", False)
        new_state = _guarded_update(state, gradients, loss, finite, spike, optimizer, config)
        metrics = {"loss": loss, **reduced, "gradient_norm": norm, "learning_rate": schedule(_updates(state))}
        # Only the splits. The totals above come from the objective, with its weights over t.
        metrics |= {name: total / jnp.maximum(n, 1) for name, (total, n) in sums.items() if "/" in name}
        metrics |= {f"tokens/{name}": n for name, (_, n) in sums.items()}
        metrics |= {f"weight/{name}": jnp.asarray(weights[name], jnp.float32) for name in reduced}
        metrics |= {"finite": finite, "latched": new_state.latched, "skipped": new_state.skipped, **spikes}
        return new_state, metrics

    return step


def _updates(state: TrainState) -> Array:
    """Number of updates applied, which determines schedule, EMA decay and warm-up."""
    return state.step - state.skipped


def _float32(gradients: Params) -> Params:
    """Casts gradients to float32, because sums over microbatches, norms and moments need its precision."""
    cast: Params = jax.tree.map(lambda x: x.astype(jnp.float32), gradients)
    return cast


def _sum_over_microbatches(function: Callable[[Batch], Tree], batch: Batch, count: int) -> Tree:
    """Sums the outputs of `function` over the microbatches, computed one at a time."""
    if count == 1:
        return function(batch)
    # Strided rows, so that each device keeps the rows it already has.
    micros = jax.tree.map(lambda x: x.reshape(x.shape[0] // count, count, *x.shape[1:]).swapaxes(0, 1), batch)

    def add(total: Tree, micro: Batch) -> tuple[Tree, None]:
        return jax.tree.map(jnp.add, total, function(micro)), None

    shapes = jax.eval_shape(function, jax.tree.map(lambda x: x[0], micros))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    total: Tree
    total, _ = jax.lax.scan(add, zeros, micros)
    return total


def _warm_up_mask(tree: Params, updates: Array, config: OptimizerConfig) -> Params:
    """Zeroes everything except the added parts during their warm-up."""
    if not config.metaquery_warmup_steps:
        return tree
    active = updates >= config.metaquery_warmup_steps
    return {
        part: leaves if part in ADDED_PARTS else jax.tree.map(lambda x: jnp.where(active, x, 0), leaves)
        for part, leaves in tree.items()
    }


def _guarded_update(
    state: TrainState,
    gradients: Params,
    loss: Array,
    finite: Array,
    spike: Array,
    optimizer: optax.GradientTransformation,
    config: StepConfig,
) -> TrainState:
    """Returns the state after the update.

    Parameters, optimizer state and EMA are unchanged if `finite` is False, at a spike, or if the state is latched.
    """
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.trainable)
    updates = _warm_up_mask(updates, _updates(state), config.optimizer)
    trainable = optax.apply_updates(state.trainable, updates)
    on_host = config.optimizer.ema_memory == "host"
    old_ema = ema = jax.device_put(state.ema, jax.memory.Space.Device) if on_host else state.ema
    if ema is not None:
        decay = ema_decay(config.optimizer, _updates(state))
        ema = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new.astype(jnp.float32), ema, trainable)
    applied = finite & ~spike & ~state.latched
    trainable, opt_state, ema = jax.tree.map(
        lambda new, old: jnp.where(applied, new, old),
        (trainable, opt_state, ema),
        (state.trainable, state.opt_state, old_ema),
    )
    stopping = (~finite & (config.optimizer.nonfinite == "stop")) | (spike & (config.limits.spike == "rewind"))
    latched = state.latched | stopping
    skipped = ~applied & ~latched
    return dataclasses.replace(
        state,
        step=state.step + jnp.where(applied | skipped, 1, 0),
        trainable=trainable,
        opt_state=opt_state,
        ema=ema,
        latched=latched,
        skipped=state.skipped + jnp.where(skipped, 1, 0),
        recent_losses=with_loss(state.recent_losses, loss, applied),
    )


def make_evaluation_step(config: StepConfig) -> Callable[..., dict[str, tuple[Array, Array]]]:
    """Returns a function of parameters, batch and `TrainState.anchor` (default: None) that computes (sum, count) of
    every loss of the batch: in total, by time bin, by task and by dataset.

    It uses the microbatches of the train step, so it needs no more memory.
    """

    def step(params: Params, batch: Batch, anchor: Params | None = None) -> dict[str, tuple[Array, Array]]:
        def sums(micro: Batch) -> dict[str, tuple[Array, Array]]:
            return loss_sums(losses_of(params, micro, draw_for(micro, config), config, anchor), config.datasets)

        return _sum_over_microbatches(sums, batch, config.optimizer.accumulation)

    return step


def expert_part(params: Params) -> Params:
    """Selects the layers of the generation expert, whose leaves are stacked or kept apart by layer."""
    return partition(params, ("decoder/layers/generation",))[0]


def loss_gradients(
    expert: Params, params: Params, batch: Batch, counts: dict[str, Array], config: StepConfig
) -> dict[str, Params]:
    """Computes the gradient of each measured loss with respect to `expert`, by name of the loss; float32.

    It runs one forward pass and one backward pass per loss.

    Args:
      expert: a part of the parameters.
      params: all parameters.
      batch: the batch, or one of its microbatches.
      counts: the denominators (`loss_counts`) of the whole batch.
      config: the step.
    """
    # The anchor loss is not measured, so the starting model is not needed.
    config = dataclasses.replace(config, objective=dataclasses.replace(config.objective, anchor_weight=0.0))
    names, draws = measured_losses(config.objective), draw_for(batch, config)

    def losses(expert: Params) -> Array:
        reduced = reduce_losses(losses_of(merge(params, expert), batch, draws, config), counts, config.objective)
        return jnp.stack([reduced[name] for name in names])

    _, pull_back = jax.vjp(losses, expert)
    rows = zip(names, jnp.eye(len(names)), strict=True)
    return {name: _float32(pull_back(row)[0]) for name, row in rows}


def gradient_products(gradients: dict[str, Params]) -> dict[tuple[str, str], Float[Array, " layers"]]:
    """Computes the inner product of the gradients of any two losses (or of one twice) in each layer.

    Args:
      gradients: gradients by name, of parameters that are stacked or kept apart by layer.
    """
    gradients = stacked(gradients)

    def product(first: Params, second: Params) -> Array:
        each = jax.tree.map(lambda a, b: jnp.sum(a * b, axis=tuple(range(1, a.ndim))), first, second)
        return jax.tree.reduce(jnp.add, each)

    # In the order of the table, because JAX sorts the keys of dictionaries.
    names = [loss.name for loss in LOSSES if loss.name in gradients]
    pairs = itertools.combinations_with_replacement(names, 2)
    return {(first, second): product(gradients[first], gradients[second]) for first, second in pairs}


def norms_and_cosines(
    products: dict[tuple[str, str], Float[Array, "*layers"]],
) -> tuple[dict[str, Float[Array, "*layers"]], dict[tuple[str, str], Float[Array, "*layers"]]]:
    """Converts inner products of gradients to the norm of each, by name, and the cosine between any two."""
    norms = {first: jnp.sqrt(value) for (first, second), value in products.items() if first == second}
    cosines = {
        (first, second): value / jnp.maximum(norms[first] * norms[second], 1e-30)
        for (first, second), value in products.items()
        if first != second
    }
    return norms, cosines


def make_gradient_probe(config: StepConfig) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Returns a function that measures each loss's gradient into the generation expert's layers: norms and cosines.

    If the expert is frozen under trainable adapters, it measures gradients into the adapters. It runs one forward pass
    and one backward pass per loss, in the microbatches of the train step, and holds the float32 gradients of all losses
    in memory. It updates the running estimates in the state, which balanced weights use. A loss without tokens, or with
    a non-finite norm, does not change its estimate.
    """
    balance = config.objective.balance

    def probe(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        counts = loss_counts(batch)
        params = merge(state.trainable, state.frozen)
        expert = partition(state.trainable, (ADAPTERS,))[0] or expert_part(params)

        def gradients_of(micro: Batch) -> dict[str, Params]:
            return loss_gradients(expert, params, micro, counts, config)

        gradients = _sum_over_microbatches(gradients_of, batch, config.optimizer.accumulation)
        products = {pair: jnp.sum(layers) for pair, layers in gradient_products(gradients).items()}
        norms, cosines = norms_and_cosines(products)
        metrics = {f"gradient_norm/{name}": norm for name, norm in norms.items()}
        metrics |= {f"gradient_cosine/{first}_{second}": cosine for (first, second), cosine in cosines.items()}
        estimates = {
            name: _running_estimate(state.gradient_norms[name], norm, counts[name], balance.decay)
            for name, norm in norms.items()
        }
        return dataclasses.replace(state, gradient_norms={**state.gradient_norms, **estimates}), metrics

    return probe


def _running_estimate(old: Array, measured: Array, count: Array, decay: float) -> Array:
    averaged = jnp.where(old > 0, decay * old + (1 - decay) * measured, measured)
    return jnp.where((count > 0) & jnp.isfinite(measured), averaged, old)
