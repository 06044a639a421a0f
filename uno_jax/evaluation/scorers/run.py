"""Scores the pictures of a folder with a package from PyPI, in a process and an environment of its own."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from rich.console import Console

from uno_jax.evaluation.benchmark import BenchmarkError
from uno_jax.evaluation.record import Made, Record, read_record
from uno_jax.evaluation.score import SCORES
from uno_jax.evaluation.scorers.process import run_program
from uno_jax.evaluation.scorers.program import EXTENSIONS, SCORERS, Job, Scorer
from uno_jax.process.files import hash_files, write_json

LOGS = "scorers"
"""Folder of what scorers print, below the output folder."""


class Settings(NamedTuple):
    """How a scorer is run."""

    name: str
    """A key of `SCORERS`."""
    python: Path
    """The Python of an environment that has its package."""
    reference: Path | None = None
    """Folder of pictures to compare with, if the scorer compares."""
    weights: str | None = None
    """A file, or a name that the package knows; None: what the package loads."""
    side: int = 0
    """Pixels that all pictures are resized and cropped to before they are compared; 0: as they are."""


class _Found(NamedTuple):
    """Pictures, and those to compare them with."""

    pictures: list[Made]
    references: list[Path]
    sha256: str | None
    """Hash of the reference pictures, if there are any."""


def score_pictures(out: Path, settings: Settings, console: Console) -> dict[str, Any]:
    """Scores all pictures that exist, and writes and returns the scores, in a file of the scorer beside `score.json`.

    Args:
      out: folder that `generate` has written.
      settings: the scorer.
      console: receives where the scorer's own output is.

    Raises:
      BenchmarkError: the scorer does not suit the pictures, cannot be run, or fails.
    """
    record, scorer = read_record(out), SCORERS[settings.name]
    references = _references(settings.reference, scorer)
    pictures = [made for made in record.pictures if (out / made.file).is_file()]
    found = _Found(pictures, references, hash_files(references) if references else None)
    _check(out, record, found, settings, scorer)
    result = _run(out, record, found, settings, scorer, console)
    scores = _scores(result, found.pictures) if not scorer.reference else {}
    averages = _averages(result, settings) if scorer.reference else _means(scorer, scores)
    items = _by_item(scores)
    categories = defaultdict(list)
    for item in record.items:
        if item.id in items:
            categories[item.category].append(items[item.id])
    judge = _label(found, settings, scorer, result["versions"])
    made = {picture.item for picture in found.pictures}
    content = {
        "benchmark": record.head["benchmark"],
        "judge": judge,
        "scorer": {
            "name": settings.name,
            "versions": result["versions"],
            "weights": settings.weights,
            "side": settings.side,
            "references": len(found.references),
            "references_sha256": found.sha256,
        },
        "averages": averages,
        "categories": {name: float(np.mean(values)) for name, values in sorted(categories.items())},
        "items_scored": len(made if scorer.reference else items),
        "items_expected": len(record.items),
        "pictures_scored": len(found.pictures if scorer.reference else scores),
        "pictures_expected": len(record.pictures),
        "failed": 0 if scorer.reference else len(found.pictures) - len(scores),
        "checkpoint": record.head["checkpoint"]["sha256"],
        "scored": datetime.now(UTC).isoformat(timespec="seconds"),
        "items": items,
    }
    write_json(out / SCORES.replace("*", settings.name), content)
    return content


def _references(folder: Path | None, scorer: Scorer) -> list[Path]:
    if (folder is not None) != scorer.reference:
        needs = "needs the folder of --reference" if scorer.reference else "takes no --reference"
        raise BenchmarkError(f"{scorer.package} {needs}, because it compares pictures with {_compared(scorer)}")
    if folder is None:
        return []
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower()[1:] in EXTENSIONS and file.is_file())
    if not files:
        raise BenchmarkError(f"{folder}: there are no pictures ({', '.join(EXTENSIONS)}) to compare with")
    return files


def _compared(scorer: Scorer) -> str:
    return "other pictures" if scorer.reference else "their prompts"


def _check(out: Path, record: Record, found: _Found, settings: Settings, scorer: Scorer) -> None:
    if not found.pictures:
        raise BenchmarkError(f"{out}: there are no pictures to score; generate them first")
    if not scorer.reference and any(item.source is not None for item in record.items):
        raise BenchmarkError(
            f"{out} has edits, but {scorer.package} compares a picture with a description of it; use a judge of edits"
        )
    if settings.side and not scorer.reference:
        raise BenchmarkError(f"--side is for scorers that compare pictures, and not for {settings.name}")
    if scorer.reference and not settings.side:
        sizes: dict[tuple[int, int], Path] = {}
        for file in (*(out / made.file for made in found.pictures), *found.references):
            sizes.setdefault(_size(file), file)
        if len(sizes) > 1:
            (one, first), (two, second), *_ = sizes.items()
            raise BenchmarkError(
                f"{first} has {one[0]}x{one[1]} pixels and {second} {two[0]}x{two[1]}, but {scorer.package} compares "
                "pictures of one size; give --side to resize and crop all"
            )


def _size(file: Path) -> tuple[int, int]:
    try:
        with Image.open(file) as image:
            return image.size
    except OSError as error:
        raise BenchmarkError(f"{file}: cannot be read as a picture; remove it or generate it again") from error


def _run(
    out: Path, record: Record, found: _Found, settings: Settings, scorer: Scorer, console: Console
) -> dict[str, Any]:
    """Runs the scorer on a folder of links to the pictures, because those of a benchmark hold other files, too."""
    log = out / LOGS / f"{settings.name}.log"
    log.parent.mkdir(exist_ok=True)
    note = f"{len(found.pictures):,} pictures to {scorer.package}; its output is in {log}"
    console.print(note, markup=False, highlight=False)
    prompts = {item.id: item.prompt for item in record.items}
    with TemporaryDirectory() as folder:
        links = [Path(folder) / f"{number:06d}{Path(made.file).suffix}" for number, made in enumerate(found.pictures)]
        for link, made in zip(links, found.pictures, strict=True):
            link.symlink_to((out / made.file).resolve())
        job = Job(
            folder=folder,
            pictures=list(map(str, links)),
            prompts=[prompts[made.item] for made in found.pictures],
            reference=None if settings.reference is None else str(settings.reference.resolve()),
            references=len(found.references),
            weights=_weights(settings),
            side=settings.side,
        )
        return run_program(settings.name, settings.python, job, log)


def _weights(settings: Settings) -> str | None:
    """Returns the weights as the package takes them, in whatever folder it runs."""
    given = settings.weights
    return str(Path(given).resolve()) if given is not None and Path(given).is_file() else given


def _scores(result: Mapping[str, Any], pictures: Sequence[Made]) -> dict[Made, float]:
    """Returns the scores of the pictures that have one."""
    scores = result.get("scores")
    if not isinstance(scores, list) or len(scores) != len(pictures):
        raise BenchmarkError(f"the scorer has returned {_count(scores)} for {len(pictures):,} pictures; see its log")
    return {made: float(score) for made, score in zip(pictures, scores, strict=True) if score is not None}


def _count(scores: Any) -> str:
    return f"{len(scores):,} scores" if isinstance(scores, list) else "no scores"


def _averages(result: Mapping[str, Any], settings: Settings) -> dict[str, float]:
    averages = result.get("averages") or {}
    if not averages or not all(isinstance(value, float) and math.isfinite(value) for value in averages.values()):
        raise BenchmarkError(f"{settings.name} has returned no numbers ({json.dumps(averages)}); see its log")
    return dict(averages)


def _means(scorer: Scorer, scores: Mapping[Made, float]) -> dict[str, float]:
    if not scores:
        raise BenchmarkError(f"{scorer.package} has given no picture a finite score; see its log")
    return {f"{scorer.title}, mean of pictures": float(np.mean(list(scores.values())))}


def _by_item(scores: Mapping[Made, float]) -> dict[str, float]:
    samples = defaultdict(list)
    for made, score in scores.items():
        samples[made.item].append(score)
    return {item: float(np.mean(values)) for item, values in samples.items()}


def _label(found: _Found, settings: Settings, scorer: Scorer, versions: Mapping[str, str]) -> str:
    """Names everything that numbers must share to be compared, besides the pictures."""
    parts = [f"{scorer.package} {versions.get(scorer.package, '')}".strip()]
    if settings.weights is not None:
        file = Path(settings.weights)
        parts.append(f"weights {hash_files([file])[:8]}" if file.is_file() else settings.weights)
    if found.sha256 is not None:
        parts.append(f"{len(found.references):,} pictures {found.sha256[:8]}")
    if settings.side:
        parts.append(f"{settings.side} pixels")
    return ", ".join(parts)
