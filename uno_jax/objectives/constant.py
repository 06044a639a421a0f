"""Constant predictors: the loss of a model that ignores its inputs, for comparison."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from uno_jax.batch import Batch, TokenBatch
from uno_jax.models.config import ModelConfig
from uno_jax.models.unified import UnifiedModel
from uno_jax.objectives.config import ObjectiveConfig, VisualLoss
from uno_jax.objectives.distances import visual_distance
from uno_jax.parallel.hosts import gather_json, gather_shares
from uno_jax.parallel.mesh import jit_replicated, put_rows

TargetName = Literal["query", "align"]
Mask = Callable[[TokenBatch], Bool[Array, "batch tokens"]]
Params = Mapping[str, Any]


class HeldOut(NamedTuple):
    """Batches that a constant predictor is fitted to and evaluated on, and the model that computes their targets."""

    batches: Sequence[Batch]
    """Encoded batches of this host's rows, in host memory."""
    params: Params
    model: ModelConfig
    objective: ObjectiveConfig
    mesh: Mesh


ConstantPredictor = Callable[[HeldOut, Mask], float | None]
"""Mean loss of the best constant predictor over the tokens of all hosts; None without tokens.

All hosts must call it together.
"""


def label_entropy(
    held_out: HeldOut, mask: Mask, *, labels: Callable[[TokenBatch], Int[Array, "batch tokens"]]
) -> float | None:
    """Cross-entropy of predicting each label with its frequency: the entropy of the labels."""
    own = np.concatenate([labels(batch)[mask(batch)] for batch in held_out.batches])
    own_counts = {str(label): int(n) for label, n in zip(*np.unique_counts(own), strict=True)}
    counts: Counter[str] = Counter()
    for host in gather_shares(own_counts, held_out.mesh):
        counts.update(host)
    if not counts:
        return None
    share = np.array(list(counts.values())) / counts.total()
    return float(-np.sum(share * np.log(share)))


def mean_target_distance(
    held_out: HeldOut, mask: Mask, *, target: TargetName, kind: Callable[[ObjectiveConfig], VisualLoss]
) -> float | None:
    """Mean visual distance from the mean target (for cosine: the mean of unit targets) to the target of every patch.

    Args:
      held_out: the batches and the model.
      mask: the tokens.
      target: the targets, a field of `models.unified.Targets`.
      kind: returns the configured distance.
    """
    batches, params, mesh = held_out.batches, held_out.params, held_out.mesh
    if not any(gather_json(any(np.any(mask(batch)) for batch in batches))):
        return None
    settings = (held_out.model, target, kind(held_out.objective), mask)
    target_sum = jit_replicated(functools.partial(_target_sum, *settings), mesh)
    distance_sum = jit_replicated(functools.partial(_distance_sum, *settings), mesh)
    sums = [jax.device_get(target_sum(params, put_rows(batch, mesh))) for batch in batches]
    count = sum(float(tokens) for _, tokens in sums)
    constant = np.float32(np.sum([np.float64(total) for total, _ in sums], axis=0) / count)
    losses = [float(jax.device_get(distance_sum(params, put_rows(batch, mesh), constant))) for batch in batches]
    return sum(losses) / count


def _targets(model: ModelConfig, name: TargetName, params: Params, batch: Batch) -> Float[Array, "batch _ features"]:
    shape = batch.latent_positions.shape
    latents, times = jnp.zeros((*shape, model.latent_size)), jnp.zeros(shape)
    embed = functools.partial(UnifiedModel(model).apply, method="embed", align=name == "align")
    embedded: Any = embed({"params": params}, batch, latents, times)
    target: Array = getattr(embedded[1], name)
    return target


def _target_sum(
    model: ModelConfig, name: TargetName, kind: VisualLoss, mask: Mask, params: Params, batch: Batch
) -> tuple[Array, Array]:
    target, counts = _targets(model, name, params, batch), mask(batch)
    if kind == "cosine":
        target = target / jnp.maximum(jnp.linalg.norm(target, axis=-1, keepdims=True), 1e-8)
    return jnp.sum(jnp.where(counts[..., None], target, 0.0), axis=(0, 1)), jnp.sum(counts, dtype=jnp.float32)


def _distance_sum(
    model: ModelConfig,
    name: TargetName,
    kind: VisualLoss,
    mask: Mask,
    params: Params,
    batch: Batch,
    constant: Float[Array, " features"],
) -> Float[Array, ""]:
    target = _targets(model, name, params, batch)
    distance = visual_distance(jnp.broadcast_to(constant, target.shape), target, kind)
    return jnp.sum(jnp.where(mask(batch), distance, 0.0))
