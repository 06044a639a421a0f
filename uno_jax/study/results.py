"""Results of a study as arrays: one row per pair (a base and a seed), one column per record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from uno_jax.study.config import BEFORE, Evaluation
from uno_jax.study.job import read_lines
from uno_jax.study.plan import Pair, Study, Subject
from uno_jax.study.scoring import LINES
from uno_jax.study.statistics import Estimate, bootstrap

Line = Mapping[str, Any]

NO_SEED = -1
"""Seed of the pair that stands for a base itself."""


@dataclass(frozen=True)
class Measured:
    """What one evaluation measured of an arm, on the same records for all of its runs."""

    pairs: tuple[Pair, ...]
    lines: tuple[Line, ...]
    """One line per record, of the first pair: for what it says about the record."""
    right: Float[np.ndarray, "pairs records"]

    def accuracy(self, chosen: Bool[np.ndarray, " records"] | None = None) -> Estimate:
        """Returns the share of right records, of the chosen ones if given, with its interval."""
        return _estimate(self.right, self.pairs, chosen)

    def where(self, holds: Callable[[Line], bool]) -> Bool[np.ndarray, " records"]:
        """Returns the mask of the records whose line fits."""
        return np.array([holds(line) for line in self.lines], bool)

    def of_category(self, category: str) -> Bool[np.ndarray, " records"]:
        """Returns the mask of the records of a category."""
        return self.where(lambda line: bool(line["category"] == category))

    def categories(self) -> list[str]:
        """Returns the categories of the records, sorted."""
        return sorted({line["category"] for line in self.lines if "category" in line})

    def minus(self, other: Measured, chosen: Bool[np.ndarray, " records"] | None = None) -> Estimate | None:
        """Returns the mean difference to another arm over the pairs that both have; None if there are none.

        The bases, which have no seeds, are compared with all runs that start from them.
        """
        both = self.difference(other)
        return None if both is None else _estimate(both.right, both.pairs, chosen)

    def difference(self, other: Measured) -> Measured | None:
        """Returns the paired differences to another arm, by pair and record."""
        rows = dict(zip(other.pairs, other.right, strict=True))
        others = [rows.get(pair, rows.get(Pair(pair.base, NO_SEED))) for pair in self.pairs]
        common = [i for i, row in enumerate(others) if row is not None]
        if not common or [line["job"] for line in self.lines] != [line["job"] for line in other.lines]:
            return None
        differences = np.stack([self.right[i] - others[i] for i in common])
        return Measured(tuple(self.pairs[i] for i in common), self.lines, differences)


def measured(
    study: Study, name: str, evaluation: Evaluation, step: int | None = None, *, field: str = "right"
) -> Measured | None:
    """Returns what an evaluation measured of an arm, or of the bases, in the runs where it is done.

    Args:
      study: the study.
      name: the arm; BEFORE for the bases, whose pairs have the seed NO_SEED.
      evaluation: the evaluation.
      step: the step of the checkpoints; None for the last.
      field: the field of the lines to read.

    Returns:
      The results; None if none is done.
    """
    if name == BEFORE:
        subjects = {Pair(base, NO_SEED): Subject(study.base_unit(base)) for base in range(study.config.bases())}
    else:
        arm = study.arm(name)
        subjects = {pair: Subject(study.run_unit(arm, pair), step) for pair in study.pairs(arm)}
    found = {
        pair: lines_of(study.folder / study.score_unit(subject, evaluation))
        for pair, subject in subjects.items()
        if study.done.has(study.score_unit(subject, evaluation))
    }
    if not found:
        return None
    first = next(iter(found.values()))
    jobs = [line["job"] for line in first]
    rows = []
    for lines in found.values():
        by_job = {line["job"]: line for line in lines}
        rows.append([float(by_job[job].get(field, False)) for job in jobs])
    return Measured(tuple(found), tuple(first), np.array(rows))


def lines_of(folder: Path) -> Sequence[Line]:
    """Returns the lines of a scoring, sorted by job."""
    return sorted(read_lines(folder / LINES), key=lambda line: line["job"])


def _estimate(
    right: Float[np.ndarray, "pairs records"], pairs: Sequence[Pair], chosen: Bool[np.ndarray, " records"] | None
) -> Estimate:
    of = right if chosen is None else right[:, chosen]
    return bootstrap(of, [pair.base for pair in pairs] if len(pairs) > 1 else None)
