"""What a part of a report consists of, and how its numbers are written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from uno_jax.study.config import BEFORE, Evaluation, StudyConfig
from uno_jax.study.document import Block
from uno_jax.study.statistics import Estimate


@dataclass(frozen=True)
class Part:
    """A part of a report."""

    blocks: Sequence[Block]
    numbers: Any
    """The same as JSON."""


def names_of(config: StudyConfig) -> list[str]:
    """Returns the names of all that is compared: the bases, then the arms."""
    return [BEFORE, *(arm.name for arm in config.arms)]


def percent(estimate: Estimate | None) -> str:
    """Formats an accuracy with its interval: `61.3 (59.0 to 63.4)`."""
    if estimate is None:
        return ""
    mean, low, high = (100 * value for value in estimate)
    return f"{mean:.1f} ({low:.1f} to {high:.1f})"


def points(estimate: Estimate | None) -> str:
    """Formats a difference with its interval, and marks one that is resolved: `+2.1 (+0.4 to +3.9) *`."""
    if estimate is None:
        return ""
    mean, low, high = (round(100 * value, 1) + 0.0 for value in estimate)  # + 0.0 for no "-0.0"
    return f"{mean:+.1f} ({low:+.1f} to {high:+.1f}){' *' if estimate.resolved else ''}"


def title_of(evaluation: Evaluation) -> str:
    """Returns what an evaluation measures, in words."""
    if evaluation.kind == "read":
        return f"reading, {evaluation.split}"
    what = {"draw": "prompts", "edit": "edits"}[evaluation.kind]
    scale = f"guidance {evaluation.scale:g}" if evaluation.scale else "best guidance"
    return f"{evaluation.split} {what}, {scale}"
