"""Held-out losses of the model and of constant predictors."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array

from uno_jax.batch import Batch
from uno_jax.objectives.constant import HeldOut
from uno_jax.objectives.losses import LOSSES
from uno_jax.parallel.mesh import put_rows

Sums = dict[str, tuple[Array, Array]]

PROMPT_DROPPED = "prompt_dropped/"
"""Prefix of losses measured with every prompt dropped."""


def mean_losses(evaluation_step: Callable[[Batch], Sums], batches: Iterable[Batch], mesh: Mesh) -> dict[str, float]:
    """Returns the mean of every loss over the tokens of all batches, by name, without losses that have no tokens.

    `batches` are this host's encoded batches. The means are over all hosts.
    """
    totals: dict[str, np.ndarray] = {}
    for batch in batches:
        for name, pair in jax.device_get(evaluation_step(put_rows(batch, mesh))).items():
            totals[name] = totals.get(name, 0) + np.asarray(pair, np.float64)
    return {name: float(total / count) for name, (total, count) in totals.items() if count}


def constant_losses(held_out: HeldOut) -> dict[str, float]:
    """Returns the mean loss of the best constant predictor, for each loss that has one and has tokens."""
    losses = {loss.name: loss.constant(held_out, loss.tokens.mask) for loss in LOSSES if loss.constant is not None}
    return {name: value for name, value in losses.items() if value is not None}
