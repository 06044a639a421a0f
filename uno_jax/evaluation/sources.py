"""Finds published pictures, and copies those to edit to the output folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from uno_jax.evaluation.benchmark import BenchmarkError, Item
from uno_jax.process.files import atomic_file
from uno_jax.process.paths import local_path


def find_source(published: str, roots: Sequence[Path], item: Item, advice: str) -> Path:
    """Returns the file of a published picture.

    Args:
      published: its path below one of the folders.
      roots: these folders; the first one is named if the picture is missing.
      item: the item that it belongs to, for the message.
      advice: what to do if it is missing.

    Raises:
      BenchmarkError: there is no such picture, or the path leads out of the folder.
    """
    try:
        picture = Path(local_path(published))
    except ValueError as error:
        raise BenchmarkError(f"{item.where}: the picture is {error}") from error
    if picture.is_absolute() or ".." in picture.parts:
        raise BenchmarkError(f"{item.where}: the picture {published!r} is outside of the folder; download it again")
    found = next((root / picture for root in roots if (root / picture).is_file()), None)
    if found is None:
        raise BenchmarkError(f"{item.where}: there is no {roots[0] / picture}; {advice}")
    return found


def copy_source(file: Path, published: str, roots: Sequence[Path], item: Item, advice: str) -> None:
    """Copies a published picture to `file`, unless that exists. The other arguments are those of `find_source`.

    Raises:
      BenchmarkError: there is no such picture, or the path leads out of the folder.
    """
    if file.is_file():
        return
    found = find_source(published, roots, item, advice)
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(file) as temporary:
        temporary.write_bytes(found.read_bytes())
