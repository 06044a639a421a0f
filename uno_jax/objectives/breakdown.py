"""Losses as metrics: sums and counts in total, by time bin, by task, and by dataset of a mixture."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array

from uno_jax.batch import TASKS
from uno_jax.objectives.losses import TokenLosses

TIME_BINS = 4
"""Bins of equal width over t in [0, 1]."""


def loss_sums(losses: dict[str, TokenLosses], datasets: Sequence[str] = ()) -> dict[str, tuple[Array, Array]]:
    """Computes (sum, count) of each unweighted loss, in total, by time bin, by task and by dataset.

    Names are like `flow`, `flow/t0.00-0.25`, `flow/editing`, `flow/dataset/photos`. The mean over several batches or
    hosts is the sum of sums divided by the sum of counts. A loss of tokens without time has no time bins.

    Args:
      losses: the losses by name.
      datasets: names of the datasets of a mixture, in its order.
    """
    sums = {}
    for name, loss in losses.items():
        sums[name] = _sum(loss.value, loss.counts)
        if loss.time is not None:
            time_bin = jnp.clip((loss.time * TIME_BINS).astype(jnp.int32), 0, TIME_BINS - 1)
            for i in range(TIME_BINS):
                low, high = i / TIME_BINS, (i + 1) / TIME_BINS
                sums[f"{name}/t{low:.2f}-{high:.2f}"] = _sum(loss.value, loss.counts & (time_bin == i))
        for i, task in enumerate(TASKS):
            sums[f"{name}/{task}"] = _sum(loss.value, loss.counts & (loss.task == i))
        for i, dataset in enumerate(datasets if loss.dataset is not None else ()):
            sums[f"{name}/dataset/{dataset}"] = _sum(loss.value, loss.counts & (loss.dataset == i))
    return sums


def _sum(value: Array, mask: Array) -> tuple[Array, Array]:
    return jnp.sum(jnp.where(mask, value, 0.0)), jnp.sum(mask, dtype=jnp.float32)
