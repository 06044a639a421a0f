"""The gradient that each loss sends into each layer of the generation expert."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from uno_jax.batch import Batch
from uno_jax.inside.subject import SEED, Subject
from uno_jax.models.adapters import ADAPTERS
from uno_jax.objectives.config import ObjectiveConfig
from uno_jax.objectives.losses import loss_counts
from uno_jax.parallel.axes import on_mesh
from uno_jax.parallel.mesh import put_rows
from uno_jax.training.optimizer import OptimizerConfig
from uno_jax.training.state import Params, partition
from uno_jax.training.step import StepConfig, expert_part, gradient_products, loss_gradients, norms_and_cosines


class Gradients(NamedTuple):
    """Norms and cosines of the gradients of the losses that have tokens."""

    norms: dict[str, Float[np.ndarray, " layers"]]
    """Norm of the gradient of each loss into each layer."""
    cosines: dict[tuple[str, str], Float[np.ndarray, " layers"]]
    """Cosine of the gradients of two losses into each layer."""
    total_norms: dict[str, float]
    """Norm over all layers, as the train step's probe measures it."""
    total_cosines: dict[tuple[str, str], float]


def measure_gradients(subject: Subject, batches: Sequence[Batch], objective: ObjectiveConfig) -> Gradients:
    """Measures the gradients of the losses on all batches together, at times drawn as in training.

    Into the adapters, if the model has any, because the expert is then frozen.

    Args:
      subject: the model.
      batches: from `encoded_batches`, with supervision.
      objective: the losses; their weights have no effect except that a loss with weight 0 may be skipped. The align
        loss is skipped if the model has no head for it.
    """
    if not subject.config.align_layer:
        balance = dataclasses.replace(objective.balance, align=0.0)
        objective = dataclasses.replace(objective, align_weight=0.0, balance=balance)
    config = StepConfig(subject.config, objective, OptimizerConfig(), steps=1, seed=SEED)
    mesh, params = subject.reader.mesh, subject.reader.model.params
    counts = jax.tree.map(lambda *each: sum(each), *(jax.device_get(loss_counts(batch)) for batch in batches))
    with on_mesh(mesh):
        each = (_gradients(params, put_rows(batch, mesh), counts, config=config) for batch in batches)
        total = functools.reduce(functools.partial(jax.tree.map, jnp.add), each)
        products = gradient_products({name: gradient for name, gradient in total.items() if counts[name] > 0})
        norms, cosines = norms_and_cosines(products)
        summed = {pair: jnp.sum(value) for pair, value in products.items()}
        total_norms, total_cosines = norms_and_cosines(summed)
    return Gradients(
        {name: np.asarray(value) for name, value in norms.items()},
        {pair: np.asarray(value) for pair, value in cosines.items()},
        {name: float(value) for name, value in total_norms.items()},
        {pair: float(value) for pair, value in total_cosines.items()},
    )


@functools.partial(jax.jit, static_argnames="config")
def _gradients(params: Params, batch: Batch, counts: dict[str, Array], *, config: StepConfig) -> dict[str, Params]:
    expert = partition(params, (ADAPTERS,))[0] or expert_part(params)
    return loss_gradients(expert, params, batch, counts, config)
