"""A lock on a folder, which ends with the process that holds it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from uno_jax.process.errors import UserError
from uno_jax.process.json_reader import JsonError, parse_json

LOCK_FILE = ".lock"
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)


class LockError(UserError):
    """Raised for a folder that another process uses, or that cannot be written."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[bool]:
    """Holds the lock of a folder, which is made. Yields False if its file system has no locks.

    The system releases the lock when the process ends, however it ends. The file stays and says who used the folder
    last. If an error ends the work before anything else is in the folder, the file and the folder are removed again, as
    far as they were not there before.

    Raises:
      LockError: another process holds the lock, which is named, or the folder cannot be made or written.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    descriptor, is_new = _open(folder)
    try:
        holds = _take(descriptor, folder)
        if holds:
            with contextlib.suppress(OSError):  # a full disk; the lock holds without these words
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, _this_process(), 0)
        try:
            yield holds
        except BaseException:
            _remove_unused(folder, made, is_new)
            raise
    finally:
        os.close(descriptor)


def _open(folder: Path) -> tuple[int, bool]:
    """Opens the file of a lock. Returns its descriptor, and whether it is new."""
    file = folder / LOCK_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            return os.open(file, os.O_RDWR), False
        return os.open(file, os.O_RDWR | os.O_CREAT, 0o666), True
    except OSError as error:
        raise LockError(f"{folder}: cannot be written ({error.strerror}). Give a folder that can be") from None


def _take(descriptor: int, folder: Path) -> bool:
    """Takes the lock of an open file. Returns whether the file system has locks."""
    file = folder / LOCK_FILE
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.stat(file).st_ino == os.fstat(descriptor).st_ino:
            return True
    except (BlockingIOError, FileNotFoundError):
        pass  # FileNotFoundError: its holder removed the file between our opening and locking it
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise LockError(f"{folder}: cannot be locked ({error.strerror}). Give another folder") from None
        return False
    raise LockError(f"{folder}: in use by {_owner(file)}. Wait until it ends, or give another folder")


def _remove_unused(folder: Path, made: Sequence[Path], is_new: bool) -> None:
    """Removes the file of a lock and folders that were made, the innermost first, if nothing else is in them."""
    with contextlib.suppress(OSError):
        if is_new and os.listdir(folder) == [LOCK_FILE]:
            (folder / LOCK_FILE).unlink()
        for path in made:
            path.rmdir()


def _this_process() -> bytes:
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    return (json.dumps({"process": os.getpid(), "host": socket.gethostname(), "since": since}) + "\n").encode()


def _owner(file: Path) -> str:
    try:
        owner = parse_json(file.read_bytes())
        return f"process {owner['process']} on {owner['host']} since {owner['since']}"
    except (OSError, JsonError, KeyError, TypeError):
        return "another process"
