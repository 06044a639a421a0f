"""Work on a folder that survives a kill: what was done is kept next to it, and the same command goes on with that.

The work is in a folder of its own, next to the folder that it makes, or in it if that must stay in its place.
`begun.json` says with which parameters it began. What is made appears at the end, by a rename; in a folder that must
stay (a mount point, the current folder of a shell) by one rename for each entry, which the same command finishes.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uno_jax.process.errors import UserError
from uno_jax.process.files import check_folder, partial_folder, write_json
from uno_jax.process.json_reader import JsonError, parse_json, read_json_object
from uno_jax.process.lock import locked

_BEGUN = "begun.json"
_MADE = "made"
_NAMES = "names.json"  # what the folder will hold, written before the first of its entries is put there
_NUMBER = 0


class WorkError(UserError):
    """Raised for work that another command began."""


@dataclass(frozen=True)
class Work:
    """Work that was begun, perhaps by an earlier process."""

    folder: Path
    """Holds what is kept of the work until it is complete."""

    @property
    def made(self) -> Path:
        """What becomes the folder."""
        return self.folder / _MADE


@contextlib.contextmanager
def work_on(path: Path, parameters: Mapping[str, Any]) -> Iterator[Work]:
    """Begins the work on a folder, or goes on with it. At the end, `made` becomes the folder, or replaces it.

    After an error, a signal or a kill, everything that was done is kept.

    Raises:
      WorkError: the work was begun with other parameters.
      LockError: another process works on the folder.
    """
    check_folder(path)
    path = path.resolve()
    folder, old = _folder(path), path.with_name(f".{path.name}.old-{_NUMBER}")
    with locked(folder):
        _check_parameters(folder, path, parameters)
        work = Work(folder)
        try:
            write_json(folder / _BEGUN, parameters)
            work.made.mkdir(exist_ok=True)
            yield work
            _put(work, path, old)
        except BaseException:
            if not any(_done(folder)):
                shutil.rmtree(folder, ignore_errors=True)
            raise
        shutil.rmtree(folder)


def recover(path: Path) -> None:
    """Repairs a folder whose replacement was killed: the earlier one is back, or the new one complete.

    Raises:
      LockError: another process replaces it now.
    """
    path = path.resolve()
    folder, old = _folder(path), path.with_name(f".{path.name}.old-{_NUMBER}")
    if (folder / _NAMES).is_file():
        with locked(folder):
            _put(Work(folder), path, old)
            shutil.rmtree(folder)
    if old.is_dir() and not path.exists():
        old.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def forget(path: Path, parameters: Mapping[str, Any] = {}) -> None:
    """Removes what is left of work on a folder that began with some parameters, among others."""
    folder = _folder(path.resolve())
    if (folder / _BEGUN).is_file():
        try:
            found = read_json_object(folder / _BEGUN)
        except JsonError:  # of unknown work
            return
        if all(found.get(name) == value for name, value in json.loads(json.dumps(parameters)).items()):
            shutil.rmtree(folder, ignore_errors=True)


def _folder(path: Path) -> Path:
    inside = path / f".partial-{_NUMBER}"
    return inside if inside.is_dir() else partial_folder(path, _NUMBER)


def _done(folder: Path) -> Iterator[Path]:
    """Yields the complete files of the work."""
    for entry in folder.rglob("*"):
        if entry.is_file() and entry.name != _BEGUN and not entry.name.startswith("."):
            yield entry


def _check_parameters(folder: Path, path: Path, parameters: Mapping[str, Any]) -> None:
    begun = folder / _BEGUN
    if not begun.is_file():
        return
    try:
        found = read_json_object(begun)
    except JsonError as error:
        raise WorkError(f"{error}. Remove {folder}, and run the command again") from error
    wanted = json.loads(json.dumps(parameters))
    changed = sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
    if changed:
        fields = ", ".join(f"{name} ({found.get(name)!r}, now {wanted.get(name)!r})" for name in changed)
        raise WorkError(
            f"{path} was begun by a command with another value of {fields}, which was not finished. Run that command "
            f"again, give another --out, or remove {folder}"
        )


def _put(work: Work, path: Path, old: Path) -> None:
    """Makes `work.made` the folder, or finishes that."""
    if work.folder.parent == path:
        names = work.folder / _NAMES
        if not names.is_file():
            write_json(names, sorted(entry.name for entry in work.made.iterdir()))
        # What was written last, such as a manifest, marks the folder as complete.
        for entry in sorted(work.made.iterdir(), key=lambda entry: entry.stat().st_mtime_ns):
            if entry.is_dir():
                shutil.rmtree(path / entry.name, ignore_errors=True)
            entry.replace(path / entry.name)
        kept = {work.folder.name, *parse_json(names.read_bytes())}
        for entry in path.iterdir():
            if entry.name not in kept:
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    elif path.exists():
        path.rename(old)
        work.made.rename(path)
        shutil.rmtree(old)
    else:
        work.made.rename(path)
