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
    found: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in questions]
    for fold in range(FOLDS):
        held_out, selected = parts == fold, parts == (fold + 1) % FOLDS
        fitted = ~(held_out | selected)
        for number, scores in enumerate(_fold_scores(states, questions, fitted, selected, held_out)):
            found[number].append((scores, questions[number].labels[held_out]))
    return [_score(question, pairs) for question, pairs in zip(questions, found, strict=True)]


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


def _fold_scores(
    states: np.ndarray, questions: Sequence[Question], fitted: np.ndarray, selected: np.ndarray, held_out: np.ndarray
) -> list[np.ndarray]:
    """Returns the scores `[records, answers]` of the held-out records for each question."""
    tokens, features = states.shape[1:]
    x = states[fitted].reshape(-1, features).astype(np.float64)
    mean, deviation = x.mean(axis=0), x.std(axis=0)
    deviation[deviation < 1e-9] = 1.0
    x = (x - mean) / deviation
    variances, directions = np.linalg.eigh(x.T @ x / len(x))
    projected = x @ directions
    inputs = [(states[part].astype(np.float64) - mean) / deviation @ directions for part in (selected, held_out)]
    results = []
    for question in questions:
        labels = np.repeat(question.labels[fitted].astype(np.float64), tokens, axis=0)
        moments = projected.T @ (labels - labels.mean(axis=0)) / len(x)
        weights = [moments / (np.maximum(variances, 0) + penalty)[:, None] for penalty in PENALTIES]
        areas = [_mean_area((inputs[0] @ w).max(axis=1), question.labels[selected]) for w in weights]
        best = int(np.argmax(np.nan_to_num(areas)))
        results.append((inputs[1] @ weights[best]).max(axis=1))
    return results


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
