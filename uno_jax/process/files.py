"""Writes files and folders atomically, and appends to files without ever leaving half an entry."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from uno_jax.process.errors import UserError

_PARTIAL = ".partial-"


@contextlib.contextmanager
def atomic_file(file: Path) -> Iterator[Path]:
    """Yields a temporary path next to `file`, and renames it to `file` at the end.

    An error removes the temporary file and keeps an existing `file`.
    """
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(file: Path, value: Any) -> None:
    """Writes a file with a JSON value for people to read, atomically and in UTF-8."""
    with atomic_file(file) as temporary:
        temporary.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def hash_files(files: Iterable[Path]) -> str:
    """Returns the SHA-256 of the contents of files, one after the other."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            while block := opened.read(2**20):
                digest.update(block)
    return digest.hexdigest()


def check_folder(path: Path) -> None:
    """Requires a folder to exist and to be writable, or to be creatable. Leaves nothing behind.

    Raises:
      UserError: the message says why it cannot be.
    """
    existing = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
    if not existing.is_dir():
        raise UserError(f"{existing} is a file, not a folder. Give another path than {path}")
    try:
        with tempfile.TemporaryDirectory(dir=existing, prefix=_PARTIAL):
            pass
    except OSError as error:
        raise UserError(f"{existing} cannot be written ({error.strerror}). Give another path than {path}") from error


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yields an empty folder, and makes it `path` at the end, in place of an existing folder.

    An error removes the new folder and keeps the existing one. A symbolic link stays, and its target is replaced.
    """
    path = path.resolve()
    partial = partial_folder(path, os.getpid())
    try:
        partial.mkdir(parents=True)
        yield partial
        put_folder(partial, path, path.with_name(f".{path.name}.old-{os.getpid()}"))
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def is_empty(folder: Path) -> bool:
    """Whether an existing folder holds nothing but folders that `partial_folder` names."""
    return all(path.name.startswith(_PARTIAL) for path in folder.iterdir())


def partial_folder(path: Path, number: int) -> Path:
    """Returns where to build a folder that will be put at `path`: next to it, or in it if it must stay.

    An existing empty folder stays, because it may be the current folder of a shell. A mount point cannot be renamed.
    """
    if path.is_dir() and (is_empty(path) or path.is_mount()):
        return path / f"{_PARTIAL}{number}"
    return path.with_name(f".{path.name}{_PARTIAL}{number}")


def put_folder(partial: Path, path: Path, old: Path) -> None:
    """Makes `partial` (from `partial_folder`) the folder `path`. A replaced folder is renamed to `old`, and removed."""
    if partial.parent == path:
        for replaced in path.iterdir():
            if not replaced.name.startswith(_PARTIAL):
                _remove(replaced)
        # What was written last, such as a manifest, marks the folder as complete.
        for item in sorted(partial.iterdir(), key=lambda item: item.stat().st_mtime_ns):
            item.rename(path / item.name)
        partial.rmdir()
    elif not path.exists():
        partial.rename(path)
    else:
        path.rename(old)
        try:
            partial.rename(path)
        except BaseException:
            old.rename(path)
            raise
        _remove(old)


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


class AppendedFile:
    """A file to which whole entries are appended. An entry that cannot be written is kept for the next time."""

    def __init__(self, file: Path):
        """Opens the file, which is made if it does not exist."""
        self._file = file.open("ab", buffering=0)
        self._waiting = b""

    def write(self, entry: bytes) -> None:
        """Appends an entry, after those that could not be written before.

        Raises:
          OSError: nothing was written.
        """
        self._waiting += entry
        size = self._file.seek(0, os.SEEK_END)
        try:
            left = self._waiting
            while left:
                left = left[self._file.write(left) :]
        except OSError:
            with contextlib.suppress(OSError):
                self._file.truncate(size)
            raise
        self._waiting = b""

    def close(self) -> None:
        """Tries once more to write what is waiting, and closes the file.

        Raises:
          OSError: it could not be written.
        """
        try:
            if self._waiting:
                self.write(b"")
        finally:
            self._file.close()
