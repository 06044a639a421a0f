"""Whether a model understands pictures as it did before: the same questions to two checkpoints.

Post-training with a frozen understanding expert cannot change an answer to a picture that is read as ViT tokens. So
where no parameter that answers depend on has changed, every answer and every cross-entropy must be equal bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from uno_jax.evaluation.benchmark import BenchmarkError
from uno_jax.evaluation.differences import interval
from uno_jax.evaluation.table import markdown_table
from uno_jax.evaluation.understanding.parameters import changed
from uno_jax.evaluation.understanding.sitting import Sat
from uno_jax.process.errors import lines_of
from uno_jax.process.files import atomic_file, write_json

JSON, MARKDOWN = "understanding.json", "understanding.md"


class Model(NamedTuple):
    """All exams that a checkpoint has sat."""

    name: str
    checkpoint: Mapping[str, Any]
    fingerprints: Mapping[str, str]
    """From `fingerprints`."""
    exams: Mapping[str, Sat]


def changed_results(before: Sat, after: Sat) -> list[str]:
    """Returns the questions whose results differ in any bit."""
    return [name for name, result in after.results.items() if before.results.get(name) != result]


def write_comparison(out: Path, after: Model, before: Model | None) -> None:
    """Writes `understanding.md` and `understanding.json`: the averages of both models, and what has changed."""
    lines = [["exam", "average", *(["before"] if before else []), "after"]]
    content: dict[str, Any] = {"after": _about(after), "exams": {}}
    if before is not None:
        content |= {"before": _about(before), "changed": changed(before.fingerprints, after.fingerprints)}
    for name, sat in after.exams.items():
        averages: dict[str, dict[str, float]] = {"after": dict(sat.score.averages)}
        entry: dict[str, Any] = {"questions": len(sat.results), "averages": averages}
        earlier = before.exams[name] if before else None
        if earlier is not None:
            averages["before"] = dict(earlier.score.averages)
            entry |= {"changed": changed_results(earlier, sat), "difference": _difference(earlier, sat)}
        for average, value in sat.score.averages.items():
            old = [f"{earlier.score.averages[average]:.4f}"] if earlier else []
            lines.append([name, average, *old, f"{value:.4f}"])
        content["exams"][name] = entry
    write_json(out / JSON, content)
    texts = [markdown_table(lines, 2), *([_changes(content)] if before else [])]
    with atomic_file(out / MARKDOWN) as temporary:
        temporary.write_text("\n".join(texts), encoding="utf-8")


def _about(model: Model) -> dict[str, Any]:
    return {"name": model.name, "checkpoint": dict(model.checkpoint), "fingerprints": dict(model.fingerprints)}


def _difference(before: Sat, after: Sat) -> dict[str, float] | None:
    """Returns the mean difference over questions, all of one weight, and its 95% interval."""
    old, new = before.score.items, after.score.items
    pairs = np.array([new[name] - old[name] for name in new if name in old], np.float64)
    if not pairs.size:
        return None
    low, high = interval(pairs)
    return {"mean": float(pairs.mean()), "low": low, "high": high}


def _changes(content: Mapping[str, Any]) -> str:
    """Says what has changed, in sentences."""
    names: Sequence[str] = content["changed"]
    total = len(content["before"]["fingerprints"])
    same = f"The model before and the one after share all {total} inputs of answers (arrays, transform)."
    lines = [f"{len(names)} of {total} inputs of answers have changed: {names[0]}, .." if names else same]
    for name, entry in content["exams"].items():
        difference = entry["difference"]
        mean = (
            ""
            if difference is None
            else ", mean difference {mean:+.4f} ({low:+.4f} to {high:+.4f})".format(**difference)
        )
        lines.append(f"{name}: {len(entry['changed']):,} of {entry['questions']:,} results have changed{mean}")
    return "".join(f"- {line}\n" for line in lines)


def check_unchanged(before: Model, after: Model, *, required: bool) -> None:
    """Checks that answers are equal bit for bit where they must be.

    Args:
      before: the model before.
      after: the model after.
      required: whether parameters and answers may not change at all. Otherwise answers may if a parameter has.

    Raises:
      BenchmarkError: they differ.
    """
    names = changed(before.fingerprints, after.fingerprints)
    if names and required:
        raise BenchmarkError(
            f"{len(names)} parameters that answers depend on have changed, so understanding was not frozen:"
            f"{lines_of(names)}"
        )
    if names:
        return
    problems = []
    for name, sat in after.exams.items():
        if sat.inputs == before.exams[name].inputs and (found := changed_results(before.exams[name], sat)):
            problems.append(f"{name}: {len(found):,} of {len(sat.results):,}, such as question {found[0]}")
        elif sat.inputs != before.exams[name].inputs and required:
            problems.append(f"{name}: the texts of its questions are other tokens")
    if problems:
        raise BenchmarkError(
            f"results differ although no parameter that they depend on has changed:{lines_of(problems)}\n"
            "If one of the two was made on another machine or with other versions, remove its folder and repeat both"
        )
