"""Differences of models on the same items, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from uno_jax.evaluation.runs import Run

_RESAMPLES = 2000
_TAIL = 0.025
_LARGEST = 2**24  # numbers of a block of resamples, which limits memory


class Difference(NamedTuple):
    """The mean difference of two models over the items that both have a score for, and its 95% interval."""

    benchmark: str
    settings: str
    judge: str
    model: str
    minus: str
    """The model that it is compared with."""
    items: int
    value: float
    low: float
    high: float


def differences(runs: Sequence[Run]) -> list[Difference]:
    """Compares every scored run with the first one of the same benchmark, settings and judge.

    All items weigh the same, unlike in some official averages. The interval is over items only: it does not say how
    much another seed, or another run of the judge, would change.
    """
    first: dict[tuple[str, str, str], tuple[Run, dict[str, float]]] = {}
    found = []
    for run in runs:
        for score in run.scores:
            place, own = (run.benchmark, run.settings, str(score["judge"])), score["items"]
            before, other = first.setdefault(place, (run, own))
            pairs = np.array([own[item] - other[item] for item in own if item in other], np.float64)
            if before is not run and pairs.size:
                low, high = interval(pairs)
                found.append(Difference(*place, run.model, before.model, pairs.size, float(pairs.mean()), low, high))
    return found


def interval(pairs: Float[np.ndarray, " items"]) -> tuple[float, float]:
    """Returns the 95% interval of the mean: percentiles over resamples of the items with replacement."""
    random, count = np.random.default_rng(0), len(pairs)
    once = max(1, _LARGEST // count)
    means = [
        random.multinomial(count, np.full(count, 1 / count), min(once, _RESAMPLES - start)) @ pairs / count
        for start in range(0, _RESAMPLES, once)
    ]
    low, high = np.quantile(np.concatenate(means), [_TAIL, 1 - _TAIL])
    return float(low), float(high)
