"""The numbers of a look inside as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import uno_jax
from uno_jax.config import to_json
from uno_jax.data.record import Record
from uno_jax.inside.gradients import Gradients
from uno_jax.inside.look import Findings, Settings
from uno_jax.inside.probes import Score
from uno_jax.inside.questions import Question
from uno_jax.inside.records import evenly_spaced
from uno_jax.inside.subject import Checkpoint
from uno_jax.objectives.config import ObjectiveConfig


def about(checkpoint: Checkpoint) -> dict[str, Any]:
    """Returns the origin and sizes of a checkpoint."""
    return {
        "path": str(Path(checkpoint.path).resolve()),
        "trained": list(checkpoint.provenance.trained),
        "imported": bool(checkpoint.provenance.dtypes),
        "model": to_json(checkpoint.config),
    }


def report(
    command: Mapping[str, Any],
    checkpoints: Sequence[Checkpoint],
    findings: Sequence[Findings],
    records: Sequence[Record],
    questions: Sequence[Question],
    objective: ObjectiveConfig,
    settings: Settings,
) -> dict[str, Any]:
    """Returns every number that was measured, by part and checkpoint.

    Args:
      command: the options of the command.
      checkpoints: the checkpoints, in the order of `findings`.
      findings: what was found in each checkpoint.
      records: the records that were looked at.
      questions: what was probed for.
      objective: the losses whose gradients were measured.
      settings: what was looked at.
    """
    found = {checkpoint.name: each for checkpoint, each in zip(checkpoints, findings, strict=True)}
    content: dict[str, Any] = {
        "version": uno_jax.__version__,
        "command": dict(command),
        "checkpoints": {checkpoint.name: about(checkpoint) for checkpoint in checkpoints},
        "records": [record.id for record in records],
        "layers": settings.layers,
        "times": settings.times,
    }
    if "pca" in settings.parts:
        content["pca"] = {name: _components(each) for name, each in found.items()}
    if "probes" in settings.parts:
        content["questions"] = {
            question.name: {
                answer: int(count) for answer, count in zip(question.answers, question.labels.sum(axis=0), strict=True)
            }
            for question in questions
        }
        content["probes"] = {name: _probes(each, questions) for name, each in found.items()}
    if "gradients" in settings.parts:
        content["objective"] = to_json(objective)
        content["gradients"] = {name: _gradients(each.gradients) for name, each in found.items() if each.gradients}
    if "captions" in settings.parts:
        shown = [records[number] for number in evenly_spaced(len(records), settings.pictures)]
        content["captions"] = {name: _captions(each, shown, settings) for name, each in found.items()}
    return content


def _components(found: Findings) -> list[dict[str, Any]]:
    return [
        {
            "layer": layer,
            "time": time,
            "explained_variance": [float(share) for share in each.components.explained],
            "dimension": each.components.dimension,
        }
        for (layer, time), each in found.maps.items()
    ]


def _probes(found: Findings, questions: Sequence[Question]) -> list[dict[str, Any]]:
    return [
        {"layer": layer, "time": time, "states": kind, "question": question.name, **_score(score)}
        for (layer, time), probed in found.probes.items()
        for kind, scores in probed._asdict().items()
        for question, score in zip(questions, scores, strict=True)
    ]


def _score(score: Score) -> dict[str, Any]:
    values = {"auc": score.auc, "standard_error": score.error, "auc_by_answer": score.by_answer}
    if score.accuracy is not None:
        values |= {"accuracy": score.accuracy, "base_rate": score.base_rate}
    return values


def _gradients(found: Gradients) -> dict[str, Any]:
    return {
        "norms": {
            loss: {"total": found.total_norms[loss], "layers": [float(norm) for norm in norms]}
            for loss, norms in found.norms.items()
        },
        "cosines": {
            "_".join(pair): {"total": found.total_cosines[pair], "layers": [float(cosine) for cosine in cosines]}
            for pair, cosines in found.cosines.items()
        },
    }


def _captions(found: Findings, shown: Sequence[Record], settings: Settings) -> list[dict[str, Any]]:
    return [
        {"record": record.id, "prompt": record.prompt, "time": time, "caption": captions[i]}
        for time, captions in zip(settings.times, found.captions, strict=True)
        for i, record in enumerate(shown)
    ]
