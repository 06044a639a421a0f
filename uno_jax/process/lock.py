"""A lock on a folder, which ends with the process that holds it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
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
    last.

    Raises:
      LockError: another process holds the lock, which is named, or the folder cannot be made or written.
    """
    file = folder / LOCK_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise LockError(f"{folder}: cannot be written ({error.strerror}). Give a folder that can be") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockError(f"{folder}: in use by {_owner(file)}. Wait until it ends, or give another folder") from None
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise LockError(f"{folder}: cannot be locked ({error.strerror}). Give another folder") from None
            yield False
            return
        with contextlib.suppress(OSError):  # a full disk; the lock holds without these words
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, _this_process(), 0)
        yield True
    finally:
        os.close(descriptor)


def _this_process() -> bytes:
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    return (json.dumps({"process": os.getpid(), "host": socket.gethostname(), "since": since}) + "\n").encode()


def _owner(file: Path) -> str:
    try:
        owner = parse_json(file.read_bytes())
        return f"process {owner['process']} on {owner['host']} since {owner['since']}"
    except (OSError, JsonError, KeyError, TypeError):
        return "another process"
