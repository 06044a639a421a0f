"""The scores of a folder: official averages of the raw outputs of its scorer, and those that scorers from PyPI give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from uno_jax.evaluation.benchmark import BenchmarkError
from uno_jax.evaluation.record import read_record
from uno_jax.evaluation.registry import BENCHMARKS
from uno_jax.process.files import hash_files, write_json
from uno_jax.process.json_reader import read_json_object

SCORE = "score.json"
SCORES = "score_*.json"
"""Files of scorers from PyPI, with the name of the scorer for `*`."""


def score_results(
    out: Path,
    results: Sequence[Path],
    judge: str | None,
    about: Mapping[str, Any] | None = None,
    words: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Averages result files, and writes and returns `score.json` of the folder.

    Args:
      out: folder that `generate` has written.
      results: files of the official scorer, or folders whose files are all such.
      judge: name, version and date of the judge, or None.
      about: more about a judge that was asked here, for the record.
      words: what this judge said of each item.

    Raises:
      BenchmarkError: the folder or the results are not as expected.
    """
    record = read_record(out)
    name = record.head["benchmark"]
    benchmark = BENCHMARKS.get(name)
    if benchmark is None or benchmark.score is None:
        raise BenchmarkError(f"{out}: results of {name} cannot be averaged here; use its official scorer")
    files = [file for path in results for file in _files(path, benchmark.results)]
    score = benchmark.score(files, {item.id: item for item in record.items})
    content = {
        "benchmark": name,
        "judge": judge or "",
        **({} if about is None else {"judging": dict(about)}),
        "averages": dict(score.averages),
        "categories": dict(score.categories),
        "items_scored": len(score.items),
        "items_expected": len(record.items),
        "pictures_scored": score.pictures,
        "pictures_expected": len(record.pictures),
        "failed": score.failed,
        "checkpoint": record.head["checkpoint"]["sha256"],
        "results": {"files": [file.name for file in files], "sha256": hash_files(files)},
        "scored": datetime.now(UTC).isoformat(timespec="seconds"),
        "items": dict(score.items),
        "words": {**score.words, **(words or {})},
    }
    write_json(out / SCORE, content)
    return content


def _files(path: Path, pattern: str) -> list[Path]:
    if path.is_dir():
        found = sorted(file for file in path.glob(pattern) if file.is_file() and not file.name.startswith("."))
        if not found:
            what = "files" if pattern == "*" else pattern
            raise BenchmarkError(f"{path}: the folder has no {what}; give what the official scorer has written")
        return found
    if not path.is_file():
        raise BenchmarkError(f"{path}: there is no such file; give what the official scorer has written")
    return [path]


def read_scores(out: Path) -> list[dict[str, Any]]:
    """Reads all scores of a folder: `score.json`, then those of scorers from PyPI.

    Raises:
      BenchmarkError: one belongs to other pictures.
    """
    files = [file for file in (out / SCORE, *sorted(out.glob(SCORES))) if file.is_file()]
    head = read_record(out).head
    contents = [read_json_object(file) for file in files]
    for file, content in zip(files, contents, strict=True):
        if (content.get("benchmark"), content.get("checkpoint")) != (head["benchmark"], head["checkpoint"]["sha256"]):
            raise BenchmarkError(f"{file} belongs to other pictures than those of {out}; score them again")
    return contents
