"""The ids of the records of a split, in a text file next to them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def write_ids(directory: Path, split: str, ids: Iterable[str]) -> None:
    """Writes the ids of the records of a split, one a line, in their order."""
    _file(directory, split).write_text("".join(f"{id_}\n" for id_ in ids), encoding="utf-8")


def read_ids(directory: Path, split: str) -> list[str]:
    """Returns the ids of the records of a split, in their order."""
    return _file(directory, split).read_text(encoding="utf-8").split("\n")[:-1]


def _file(directory: Path, split: str) -> Path:
    return directory / f"ids-{split}.txt"
