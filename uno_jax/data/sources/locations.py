"""Files and folders of a source: on this machine, or at a URL that `etils.epath` reads, such as gs://bucket/folder."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from etils import epath

from uno_jax.data.sources.source import DataSourceError
from uno_jax.process.errors import reason_of
from uno_jax.process.json_reader import LARGEST_FILE, JsonError, parse_json
from uno_jax.process.paths import local_path

SCHEMES = {"gs": "gcs"}
"""Schemes of URLs that can be read. The value is the name of both the extra and the file system of fsspec."""

_MOST_FILES = 1_000_000


@dataclass(frozen=True)
class SourceFile:
    """A file of a source."""

    name: str
    """Its path below the folder that the user gave, or its own name."""
    path: epath.Path


def location(option: str, text: str) -> epath.Path:
    """Returns the file or folder that the value of an option names.

    Raises:
      DataSourceError: the text is no path, or a URL that cannot be read here. The message names the option.
    """
    if match := re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", text):
        _check_scheme(option, text, match[1].lower())
        return epath.Path(text)
    try:
        return epath.Path(local_path(text))
    except ValueError as error:
        raise DataSourceError(f"--{option}: {error}.") from error


def _check_scheme(option: str, text: str, scheme: str) -> None:
    known = " and ".join(f"{name}://" for name in SCHEMES)
    if scheme not in SCHEMES:
        raise DataSourceError(f"--{option}: nothing here reads {text!r}. Give a path of this machine, or {known}.")
    try:
        import fsspec

        fsspec.get_filesystem_class(SCHEMES[scheme])
    except ImportError as error:
        raise DataSourceError(
            f"--{option}: {scheme}:// needs {error.name or 'gcsfs'}. Install the extra `{SCHEMES[scheme]}`: "
            f"pip install '.[{SCHEMES[scheme]}]' (docs/install.md)"
        ) from error


def _after(folder: epath.Path, inside: epath.Path) -> str:
    """Returns the path from a folder to one inside, which libraries for URLs give without the scheme."""
    start, end = (str(path).partition("://")[2] or str(path) for path in (folder, inside))
    return end.strip("/").removeprefix(start.strip("/")).lstrip("/")


def is_remote(path: Path | epath.Path) -> bool:
    """Whether a path is a URL."""
    return "://" in str(path)


def place(option: str, text: str, kind: Literal["file", "folder"], purpose: str) -> Path | epath.Path:
    """Returns the existing file or folder that the value of an option names.

    Raises:
      DataSourceError: as in `location`, or there is no such file or folder, or it cannot be reached.
    """
    found = location(option, text)
    with reachable(option, found):
        if not (found.is_file() if kind == "file" else found.is_dir()):
            raise DataSourceError(f"--{option}: there is no {kind} {found}. Give {purpose}.")
        if kind == "file":
            _check_file(option, found)
    return found if is_remote(found) else Path(found)


def records_and_images(
    option: str, values: Mapping[str, Any], records: str
) -> tuple[Path | epath.Path, Path | epath.Path]:
    """Returns the existing file that an option names, and the folder of the option `images`. `records` describes it.

    Raises:
      DataSourceError: as in `place`.
    """
    images = "the base folder of the picture paths"
    return place(option, values[option], "file", records), place("images", values["images"], "folder", images)


def _check_file(option: str, path: epath.Path) -> None:
    if not is_remote(path) and not Path(path).is_file():  # which `epath` takes for a file
        raise DataSourceError(f"--{option}: {path} is a pipe or a device, which can be read only once. Give a file.")


@contextlib.contextmanager
def reachable(option: str, path: epath.Path) -> Iterator[None]:
    """Turns the errors of a library for URLs, such as missing credentials, into a DataSourceError."""
    try:
        yield
    except DataSourceError:
        raise
    except Exception as error:  # of any kind: credentials, permissions, networks
        if not is_remote(path):
            raise
        raise DataSourceError(f"--{option}: {path} cannot be read ({reason_of(error)}).") from error


def find_files(option: str, text: str, endings: Sequence[str], kind: str) -> list[SourceFile]:
    """Returns the file that an option names, or all files with an ending below the folder that it names, by name.

    Raises:
      DataSourceError: there is none, or it cannot be read. The message names the option.
    """
    path = location(option, text)
    with reachable(option, path):
        if path.is_file():
            _check_file(option, path)
            return [SourceFile(path.name, path)]
        if not path.is_dir():
            raise DataSourceError(f"--{option}: there is no file or folder {text}. Give {kind}.")
        files = sorted(_below(option, path, tuple(endings)), key=lambda file: file.name)
    if not files:
        raise DataSourceError(f"--{option}: no file in {text} ends with {' or '.join(endings)}. Give {kind}.")
    return files


def _below(option: str, folder: epath.Path, endings: tuple[str, ...]) -> Iterator[SourceFile]:
    seen = 0
    for inside, _, names in folder.walk():
        for name in names:
            seen += 1
            if seen > _MOST_FILES:
                found = f"more than {_MOST_FILES:,} files in {folder}"
                raise DataSourceError(f"--{option}: {found}. Give a folder of shards.")
            if name.lower().endswith(endings):
                relative = f"{_after(folder, inside)}/{name}".lstrip("/")
                yield SourceFile(relative, folder / relative)


def folder_state(option: str, folder: Path | epath.Path) -> str:
    """Returns a hash of the names, sizes and modification times of a folder's files, without reading them."""
    if is_remote(folder):
        return state_of(sorted(_below(option, epath.Path(folder), ("",)), key=lambda file: file.name))
    state = hashlib.sha256()
    for path in sorted(Path(folder).rglob("*")):
        if path.is_file():
            stat = path.stat()
            state.update(
                f"{path.relative_to(folder)}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode(errors="surrogateescape")
            )
    return state.hexdigest()


def file_hash(file: Path | epath.Path) -> str:
    """Returns the SHA-256 of a file's contents."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def state_of(files: Sequence[SourceFile]) -> str:
    """Returns a hash of the names, sizes and modification times of files, without reading them."""
    state = hashlib.sha256()
    for file in files:
        stat = file.path.stat()
        state.update(f"{file.name}\0{stat.length}\0{stat.mtime}\n".encode(errors="surrogateescape"))
    return state.hexdigest()


def read_json(path: epath.Path, remedy: str) -> dict[str, Any]:
    """Reads a file with a JSON object.

    Raises:
      DataSourceError: it cannot be read, or is too large. The message names it and ends with the remedy.
    """
    try:
        if path.stat().length > LARGEST_FILE:
            raise JsonError("too large")
        value = parse_json(path.read_bytes())
    except (JsonError, OSError) as error:
        raise DataSourceError(f"{path} cannot be read ({error}). {remedy}.") from error
    if not isinstance(value, dict):
        raise DataSourceError(f"{path}: no JSON object. {remedy}.")
    return value
