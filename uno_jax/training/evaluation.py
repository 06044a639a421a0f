"""Held-out losses, and what a predictor would lose that always says the same."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from uno_jax.batch import Batch
from uno_jax.models.config import ModelConfig
from uno_jax.models.unified import UnifiedModel
from uno_jax.objectives.losses import visual_distance
from uno_jax.parallel.hosts import gather_json, gather_shares
from uno_jax.parallel.mesh import jit_whole, put_rows
from uno_jax.training.state import Params

Sums = dict[str, tuple[Array, Array]]


def mean_losses(
    evaluation_step: Callable[[Params, Batch], Sums], params: Params, batches: Iterable[Batch], mesh: Mesh
) -> dict[str, float]:
    """Mean of every loss over the tokens of all batches, named as in the sums; losses without tokens are left out.

    `batches` are this host's share, encoded already; the means are of all hosts.
    """
    totals: dict[str, np.ndarray] = {}
    for batch in batches:
        for name, pair in jax.device_get(evaluation_step(params, put_rows(batch, mesh))).items():
            totals[name] = totals.get(name, 0) + np.asarray(pair, np.float64)
    return {name: float(total / count) for name, (total, count) in totals.items() if count}


def constant_cross_entropy(batches: Iterable[Batch], mesh: Mesh) -> dict[str, float]:
    """Cross-entropy of the best constant predictor of captions and of answers: the entropy of their labels, all hosts'.

    `batches` as above.
    """
    entropies = {}
    batches = list(batches)
    for name, labels_field, mask_field in (
        ("caption", "caption_labels", "caption_loss"),
        ("answer", "text_labels", "text_loss"),
    ):
        labels = np.concatenate([getattr(batch, labels_field)[getattr(batch, mask_field)] for batch in batches])
        counted: Counter[str] = Counter()
        for host in gather_shares(
            {str(label): int(n) for label, n in zip(*np.unique_counts(labels), strict=True)}, mesh
        ):
            counted.update(host)
        if counted:
            share = np.array(list(counted.values())) / counted.total()
            entropies[name] = float(-np.sum(share * np.log(share)))
    return entropies


def constant_visual_loss(
    model: ModelConfig, kind: str, params: Params, batches: Iterable[Batch], mesh: Mesh
) -> float | None:
    """Loss of the constant predictor of vision features, which always says the mean target (of unit targets for the
    cosine); None if no batch has metaqueries. `kind` as in `ObjectiveConfig.visual_loss`, `batches` as above."""
    batches = list(batches)
    target_sum = jit_whole(functools.partial(_target_sum, model, kind), mesh)
    constant_loss = jit_whole(functools.partial(_constant_loss, model, kind), mesh)
    if not any(gather_json(any(np.any(batch.query_loss) for batch in batches))):
        return None
    sums = [jax.device_get(target_sum(params, put_rows(batch, mesh))) for batch in batches]
    count = sum(float(tokens) for _, tokens in sums)
    constant = np.float32(np.sum([np.float64(total) for total, _ in sums], axis=0) / count)
    losses = [float(jax.device_get(constant_loss(params, put_rows(batch, mesh), constant))) for batch in batches]
    return sum(losses) / count


def _targets(model: ModelConfig, params: Params, batch: Batch) -> Float[Array, "batch queries features"]:
    shape = batch.latent_positions.shape
    latents = jnp.zeros((*shape, model.latent_size))
    embedded: Any = UnifiedModel(model).apply({"params": params}, batch, latents, jnp.zeros(shape), method="embed")
    return embedded[1]


def _target_sum(model: ModelConfig, kind: str, params: Params, batch: Batch) -> tuple[Array, Array]:
    target = _targets(model, params, batch)
    if kind == "cosine":
        target = target / jnp.maximum(jnp.linalg.norm(target, axis=-1, keepdims=True), 1e-8)
    mask = batch.query_loss[..., None]
    return jnp.sum(jnp.where(mask, target, 0.0), axis=(0, 1)), jnp.sum(batch.query_loss, dtype=jnp.float32)


def _constant_loss(model: ModelConfig, kind: str, params: Params, batch: Batch, constant: Array) -> Array:
    target = _targets(model, params, batch)
    distance = visual_distance(jnp.broadcast_to(constant, target.shape), target, kind)
    return jnp.sum(jnp.where(batch.query_loss, distance, 0.0))
