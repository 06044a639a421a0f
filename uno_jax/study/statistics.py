"""Paired comparisons of arms, their bootstrap intervals, and how many runs and prompts a difference needs.

A *pair* is one base with one seed. Every arm is run for the same pairs and judged on the same prompts with the same
noise, so a difference of two arms is a mean of paired differences. Results of an arm are an array `[pairs, prompts]`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

Results = Float[np.ndarray, "pairs prompts"]
"""1 where a prompt was drawn right, 0 where not."""

CONFIDENCE = 0.95
RESAMPLES = 2000


class Estimate(NamedTuple):
    """A mean and its interval."""

    mean: float
    low: float
    high: float

    @property
    def resolved(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


def bootstrap(
    results: Results,
    bases: Sequence[Any] | None = None,
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Estimate:
    """Returns the mean of `results` and its percentile interval over prompts and, hierarchically, over pairs.

    Each resample draws bases with replacement, then for each of them as many of its pairs as it has, and independently
    the prompts, the same for all pairs. For a difference of two arms, pass the difference of their results.

    Args:
      results: one row per pair, one column per prompt.
      bases: the base of each pair; None resamples prompts only, which gives the interval for exactly these runs.
      resamples: number of resamples.
      confidence: probability that the interval covers.
      seed: seed of the resamples.

    Raises:
      ValueError: there are no results, or `bases` has another length.
    """
    pairs, prompts = results.shape
    if not pairs * prompts:
        raise ValueError(f"no results to resample: {pairs} pairs, {prompts} prompts")
    random = np.random.default_rng(seed)
    chosen = random.multinomial(prompts, np.full(prompts, 1 / prompts), resamples)  # how often each prompt is drawn
    by_pair = chosen @ results.T.astype(np.float64) / prompts
    if bases is None:
        means = by_pair.mean(axis=1)
    else:
        means = (by_pair * _pair_weights(bases, pairs, resamples, random)).sum(axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Estimate(float(results.mean()), float(low), float(high))


def _pair_weights(
    bases: Sequence[Any], pairs: int, resamples: int, random: np.random.Generator
) -> Float[np.ndarray, "resamples pairs"]:
    """Draws the weight of each pair in each resample. They sum to 1."""
    if len(bases) != pairs:
        raise ValueError(f"{len(bases)} bases are given for {pairs} pairs: expected one per pair")
    groups = [np.flatnonzero([base == name for base in bases]) for name in dict.fromkeys(bases)]
    counts = random.multinomial(len(groups), np.full(len(groups), 1 / len(groups)), resamples)
    weights = np.zeros((resamples, pairs))
    for group, drawn in zip(groups, counts.T, strict=True):
        # A base that is drawn twice draws its pairs twice.
        weights[:, group] = random.multinomial(drawn * len(group), np.full(len(group), 1 / len(group)))
    normalised: np.ndarray = weights / weights.sum(axis=1, keepdims=True)
    return normalised


def pair_interval(results: Results, confidence: float = CONFIDENCE) -> Estimate:
    """Returns the mean of `results` and Student's interval over the means of pairs, which suits few pairs.

    The interval is infinite with one pair.
    """
    means = results.mean(axis=1, dtype=np.float64)
    mean = float(means.mean())
    if len(means) < 2:
        return Estimate(mean, -math.inf, math.inf)
    half = student_quantile((1 + confidence) / 2, len(means) - 1) * float(means.std(ddof=1)) / math.sqrt(len(means))
    return Estimate(mean, mean - half, mean + half)


class Spread(NamedTuple):
    """Standard deviations behind a difference of two arms, by source."""

    runs: float
    """Standard deviation of the true difference from pair to pair."""
    prompts: float
    """Standard deviation from prompt to prompt of the difference averaged over pairs: more runs cannot reduce it."""
    draws: float
    """Standard deviation of the rest: the difference of one prompt in one pair."""


def spread(differences: Results) -> Spread:
    """Separates the sources of variation of paired differences, by the method of moments (two-way random effects).

    Raises:
      ValueError: there are fewer than two pairs or two prompts.
    """
    pairs, prompts = differences.shape
    if pairs < 2 or prompts < 2:
        raise ValueError(f"{pairs} pairs and {prompts} prompts: expected at least 2 of each")
    values = differences.astype(np.float64)
    of_pairs, of_prompts = values.mean(axis=1), values.mean(axis=0)
    rest = values - of_pairs[:, None] - of_prompts + values.mean()
    draws = (rest**2).sum() / ((pairs - 1) * (prompts - 1))
    runs = of_pairs.var(ddof=1) - draws / prompts
    shared = of_prompts.var(ddof=1) - draws / pairs
    return Spread(*(math.sqrt(max(variance, 0.0)) for variance in (runs, shared, draws)))


def standard_error(spread: Spread, pairs: int, prompts: int) -> float:
    """Returns the standard error of a difference measured on `pairs` pairs and `prompts` prompts."""
    return math.sqrt(spread.runs**2 / pairs + spread.prompts**2 / prompts + spread.draws**2 / (pairs * prompts))


@dataclass(frozen=True)
class Need:
    """The least number of pairs that resolves a difference, and what they resolve."""

    pairs: int
    prompts: int
    smallest: float
    """The smallest difference that these resolve."""


def smallest_difference(
    spread: Spread, pairs: int, prompts: int, *, confidence: float = CONFIDENCE, power: float = 0.8
) -> float:
    """Returns the smallest true difference whose interval excludes 0 with probability `power`.

    The interval is Student's, with one degree of freedom less than there are pairs, because the spread between runs is
    estimated from as many. With one pair it is infinite.
    """
    if pairs < 2:
        return math.inf
    quantiles = student_quantile((1 + confidence) / 2, pairs - 1) + NormalDist().inv_cdf(power)
    return quantiles * standard_error(spread, pairs, prompts)


def pairs_needed(
    spread: Spread, difference: float, prompts: int, *, most: int = 100, confidence: float = CONFIDENCE
) -> Need | None:
    """Returns the least number of pairs that resolves `difference` with `prompts` prompts; None if over `most`."""
    for pairs in range(2, most + 1):
        smallest = smallest_difference(spread, pairs, prompts, confidence=confidence)
        if smallest <= difference:
            return Need(pairs, prompts, smallest)
    return None


def student_quantile(probability: float, freedom: int) -> float:
    """Returns the quantile of Student's distribution with `freedom` degrees of freedom, for a probability above 0.5."""
    low, high = 0.0, 1.0
    while _student_cdf(high, freedom) < probability:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _student_cdf(middle, freedom) < probability else (low, middle)
    return (low + high) / 2


def _student_cdf(x: float, freedom: int) -> float:
    """Returns the distribution function for an integer number of degrees of freedom, by its finite series."""
    angle = math.atan(x / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    total = term = cosine if freedom % 2 else 1.0
    for i in range(3 if freedom % 2 else 2, freedom, 2):
        term *= cosine**2 * (i - 1) / i
        total += term
    if freedom % 2:
        return 0.5 + (angle + sine * (total if freedom > 1 else 0.0)) / math.pi
    return 0.5 + sine * total / 2
