"""Linear probes: what can be read from states by ridge regression, tested on records that it was not fitted on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from uno_jax.inside.questions import Question

FOLDS = 5
# The mean variance of the standardised features is 1.
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)


class Score(NamedTuple):
    """How well the answers to a question can be read from states of other records."""

    auc: float
    """Area under the ROC curve, mean over answers and folds; 0.5 is chance."""
    error: float | None
    """Standard error of `auc` from its spread over folds; None if its answers occur in one fold only."""
    by_answer: dict[str, float]
    """Area of each answer, mean over the folds in which it occurs."""
    accuracy: float | None
    """For an exclusive question: share of records whose highest score is of the right answer, of those with one."""
    base_rate: float | None
    """Accuracy of always giving the most frequent answer; None like `accuracy`."""


def probe(states: Float[np.ndarray, "records tokens features"], questions: Sequence[Question]) -> list[Score]:
    """Fits a ridge regression from states to answers, and scores it by cross-validation over records.

    All tokens of a record are fitted to the record's answers. The score of an answer for a record is the highest over
    its tokens. Of the five parts of the records, three are fitted on, one selects the penalty of each question, and one
    is scored, each in turn.

    Args:
      states: states of the tokens of each record; for pooled states, one.
      questions: what to read.
    """
    parts = folds(len(states))
    states = states - states.mean(axis=(0, 1))
    labels = np.concatenate([question.labels for question in questions], axis=1)
    ends = np.cumsum([len(question.answers) for question in questions])[:-1]
    moments = [_moments(states[parts == part], labels[parts == part]) for part in range(FOLDS)]
    pairs: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in questions]
    for held_out in range(FOLDS):
        selected = (held_out + 1) % FOLDS
        fits = _fits([moments[part] for part in range(FOLDS) if part not in (held_out, selected)])
        trials = [np.split(_scores(states[parts == selected], fit), ends, axis=1) for fit in fits]
        finals = [np.split(_scores(states[parts == held_out], fit), ends, axis=1) for fit in fits]
        for number, question in enumerate(questions):
            areas = [_mean_area(trial[number], question.labels[parts == selected]) for trial in trials]
            best = int(np.argmax(np.nan_to_num(areas)))
            pairs[number].append((finals[best][number], question.labels[parts == held_out]))
    return [_score(question, each) for question, each in zip(questions, pairs, strict=True)]


def folds(records: int) -> Int[np.ndarray, " records"]:
    """Assigns each record to a part at random, the same for every checkpoint; parts differ by one record at most."""
    return np.random.default_rng(0).permutation(records) % FOLDS


def area_under_curve(scores: Float[np.ndarray, " records"], positive: Bool[np.ndarray, " records"]) -> float:
    """Returns the probability that a positive record has a higher score than a negative one, ties counted half.

    NaN without positive or without negative records.
    """
    above, below = scores[positive], np.sort(scores[~positive])
    if not len(above) or not len(below):
        return float("nan")
    lower = np.searchsorted(below, above, "left") + np.searchsorted(below, above, "right")
    return float(lower.mean() / (2 * len(below)))


class _Moments(NamedTuple):
    """Sums over the tokens of some records, which determine a regression on them."""

    tokens: int
    x: np.ndarray
    y: np.ndarray
    xx: np.ndarray
    xy: np.ndarray


class _Fit(NamedTuple):
    """A regression: y = x @ weights + offset."""

    weights: np.ndarray
    offset: np.ndarray


def _moments(states: np.ndarray, labels: np.ndarray) -> _Moments:
    x = states.reshape(-1, states.shape[-1])
    y = np.repeat(labels.astype(x.dtype), states.shape[1], axis=0)
    sums = (each.astype(np.float64) for each in (x.sum(axis=0), y.sum(axis=0), x.T @ x, x.T @ y))
    return _Moments(len(x), *sums)


def _fits(moments: Sequence[_Moments]) -> list[_Fit]:
    """Returns the regression on standardised features for each penalty."""
    count = sum(part.tokens for part in moments)
    x, y, xx, xy = (np.sum(each, axis=0) for each in zip(*(part[1:] for part in moments), strict=True))
    x, y = x / count, y / count
    covariance = xx / count - np.outer(x, x)
    deviation = np.sqrt(np.maximum(np.diag(covariance), 0))
    deviation[deviation < 1e-9] = np.inf  # constant features have no weight
    variances, directions = np.linalg.eigh(covariance / np.outer(deviation, deviation))
    projected = directions.T @ ((xy / count - np.outer(x, y)) / deviation[:, None])
    fits = []
    for penalty in PENALTIES:
        weights = directions @ (projected / (np.maximum(variances, 0) + penalty)[:, None]) / deviation[:, None]
        fits.append(_Fit(weights, y - x @ weights))
    return fits


def _scores(states: np.ndarray, fit: _Fit) -> np.ndarray:
    """Returns the highest score over the tokens, `[records, answers]`."""
    scores: np.ndarray = (states @ fit.weights.astype(states.dtype)).max(axis=1) + fit.offset
    return scores


def _mean_area(scores: np.ndarray, labels: np.ndarray) -> float:
    areas = _areas(scores, labels)
    return float(np.nanmean(areas)) if not np.isnan(areas).all() else float("nan")


def _areas(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.array([area_under_curve(scores[:, i], labels[:, i]) for i in range(labels.shape[1])])


def _score(question: Question, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> Score:
    means = np.array([area for pair in pairs if not np.isnan(area := _mean_area(*pair))])
    areas = np.array([_areas(*pair) for pair in pairs])
    accuracy = base_rate = None
    if question.exclusive:
        scores, labels = (np.concatenate(each) for each in zip(*pairs, strict=True))
        known = labels.any(axis=1)
        accuracy = float((scores[known].argmax(axis=1) == labels[known].argmax(axis=1)).mean())
        base_rate = float(labels[known].mean(axis=0).max())
    return Score(
        auc=float(means.mean()),
        error=float(means.std(ddof=1) / np.sqrt(len(means))) if len(means) > 1 else None,
        by_answer={
            answer: float(np.nanmean(areas[:, i]))
            for i, answer in enumerate(question.answers)
            if not np.isnan(areas[:, i]).all()
        },
        accuracy=accuracy,
        base_rate=base_rate,
    )
