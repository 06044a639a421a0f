"""Tar files in the layout of WebDataset: consecutive members with the same name up to its ending. See `docs/data.md`.

Nothing is unpacked to a disk. Names that lead out of the archive, members that are no files, and members of an absurd
size are rejected without reading their content.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from uno_jax.data.decoding import LARGEST_FILE
from uno_jax.data.sources.columns import TABLE_OPTIONS, choose_columns, fields_of
from uno_jax.data.sources.lines import LONGEST_LINE, parse_line
from uno_jax.data.sources.locations import SourceFile, find_files, state_of
from uno_jax.data.sources.rows import Row, cut_off, open_rows
from uno_jax.data.sources.schema import FIELDS, Problem
from uno_jax.data.sources.source import DataSource, DataSourceError, Opened, Option, Reporter, Values, values_of

_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_PICTURES = ("jpg", "jpeg", "png", "webp", "avif", "gif", "bmp", "tif", "tiff", "jp2", "ppm")
_NAMES = {"txt": "prompt", **dict.fromkeys(_PICTURES, "image")}
_MOST_MEMBERS = 256
_LARGEST_SAMPLE = 2**30  # bytes of all members of a sample
_LARGEST_HEADER = 2**20  # bytes that a header may say about one member
_DAMAGE = (tarfile.TarError, OSError, EOFError, RecursionError, lzma.LZMAError, zlib.error, ValueError)


class _Bounded:
    """A file that refuses to read more than a maximum at once, which headers of archives may ask for."""

    def __init__(self, file: Any):
        self._file = file
        self.seek, self.tell, self.close = file.seek, file.tell, file.close
        self.most = _LARGEST_HEADER

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= self.most:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        content: bytes = self._file.read(size)
        return content


def open_webdataset(values: Values, reporter: Reporter) -> Opened:
    """Opens the files at `values["webdataset"]`."""
    rows = [partial(_rows, file, values) for file in _files(values)]
    return open_rows(rows, values, description=f"Records of {values['webdataset']} (WebDataset).")


def _files(values: Values) -> list[SourceFile]:
    return find_files("webdataset", values["webdataset"], _ENDINGS, "a tar file, or a folder of them")


def _rows(file: SourceFile, values: Values) -> Iterator[Row]:
    for number, (key, members, problems) in enumerate(_samples(file), 1):
        yield _row(file.name, number, key, members, problems, values)


def _row(
    file: str, number: int, key: str, members: dict[str, bytes], problems: Sequence[Problem], values: Values
) -> Row:
    named = {"id": key} if key else {}
    if problems:
        return Row(file, number, named, tuple(problems))
    columns, found = _columns_of(members)
    if found:
        return Row(file, number, named, found)
    try:
        chosen = choose_columns(list(columns), values, f"sample {key!r}", _NAMES)
    except DataSourceError as error:
        return Row(file, number, named, (("(sample)", str(error).rstrip("."), "Write all samples alike", "columns"),))
    return Row(file, number, named | fields_of(columns, chosen))


def _columns_of(members: dict[str, bytes]) -> tuple[dict[str, Any], tuple[Problem, ...]]:
    """Returns the columns of a sample: the fields of its JSON member, and the other members by their endings.

    Members such as `sources.0.png` are the pictures of a list, in the order of their numbers.
    """
    columns: dict[str, Any] = {}
    lists: dict[str, dict[int, bytes]] = {}
    for ending, content in members.items():
        kind = ending.rpartition(".")[2]
        if ending == "json":
            fields, problems = parse_line(content)
            if problems:
                _, problem, remedy, *_ = problems[0]
                return {}, (("json", problem, remedy),)
            columns = fields | columns
        elif match := re.fullmatch(rf"({'|'.join(FIELDS)})\.(\d{{1,4}})\.\w+", ending):
            lists.setdefault(match[1], {})[int(match[2])] = content
        elif kind in _PICTURES:
            columns[ending if ending == kind else ending.rpartition(".")[0]] = content
        elif kind in ("txt", "text", "caption"):
            try:
                columns["txt" if ending == kind else ending.rpartition(".")[0]] = content.decode("utf-8-sig").strip()
            except UnicodeDecodeError:
                return {}, ((ending, "text that is not UTF-8", "Write UTF-8"),)
        else:
            columns[ending] = content
    columns |= {field: [pictures[index] for index in sorted(pictures)] for field, pictures in lists.items()}
    return columns, ()


def _samples(file: SourceFile) -> Iterator[tuple[str, dict[str, bytes], list[Problem]]]:
    """Yields key, members by ending, and problems of each sample of a tar file, in its order."""
    current = ""
    members: dict[str, bytes] = {}
    problems: list[Problem] = []
    for key, ending, content, problem in _members(file):
        if current and key != current:
            yield current, members, problems
            members, problems = {}, []
        current = key
        if problem is None and ending in members:
            problem = (ending, "twice in the sample", "Give each member once")
        if len(members) == _MOST_MEMBERS or sum(map(len, members.values())) + len(content) > _LARGEST_SAMPLE:
            problem = (
                "(sample)",
                f"more than {_MOST_MEMBERS} members or {_LARGEST_SAMPLE:,} bytes",
                "Split it",
                "size",
            )
        if problem and not key:
            yield "", {}, [problem]
        elif problem and len(problems) < _MOST_MEMBERS:
            problems.append(problem)
        if problems:
            members = {}
        elif key:
            members[ending] = content
    if current:
        yield current, members, problems


def _members(file: SourceFile) -> Iterator[tuple[str, str, bytes, Problem | None]]:
    """Yields key, ending and content of each file in a tar file, or what is wrong with it.

    The key is empty if the name is not usable.
    """
    with file.path.open("rb") as raw:
        try:
            bounded = _Bounded(_unpacked(raw))
            with tarfile.open(fileobj=bounded, mode="r:") as archive:  # type: ignore[call-overload]  # it reads only
                while (member := archive.next()) is not None:
                    archive.members = []  # Python keeps every header that it has read
                    if not member.isdir():
                        yield _member(archive, member, bounded)
        except _DAMAGE as error:
            yield "", "", b"", cut_off(error)


def _member(
    archive: tarfile.TarFile, member: tarfile.TarInfo, bounded: _Bounded
) -> tuple[str, str, bytes, Problem | None]:
    name, shown = member.name, repr(member.name[:200])
    if ".." in re.split(r"[/\\]", name) or PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive:
        return "", "", b"", ("(name)", f"{shown} leads out of the archive", "Use names within it", "name")
    if not member.isreg() or member.issparse():
        return "", "", b"", ("(name)", f"{shown} is no file", "Store files, not links", "name")
    found = re.fullmatch(r"((?:.*/)?[^./][^./]*)\.([^/]+)", name)
    if found is None or not name.isprintable():
        return "", "", b"", ("(name)", f"{shown} has no key and ending", "Name it as in 0001.jpg", "name")
    key, ending = found[1], found[2].lower()
    most = LARGEST_FILE if ending.rpartition(".")[2] in _PICTURES else LONGEST_LINE
    if member.size > most:
        problem = f"{member.size:,} bytes, more than the maximum of {most:,}"
        return key, ending, b"", (ending, problem, "Make it smaller, or leave it out", "size")
    bounded.most = LARGEST_FILE
    try:
        content = archive.extractfile(member)
        return key, ending, content.read() if content else b"", None
    finally:
        bounded.most = _LARGEST_HEADER


def _unpacked(raw: Any) -> Any:
    """Returns the content of a file, decompressed if it is compressed, whatever its name."""
    start = raw.read(6)
    raw.seek(0)
    if start.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=raw)
    if start.startswith(b"BZh"):
        return bz2.BZ2File(raw)
    return lzma.LZMAFile(raw) if start.startswith(b"\xfd7zXZ") else raw


def _identity(values: Values) -> dict[str, object]:
    files = _files(values)
    for file in files:  # the first sample of each says whether the options fit
        first = next((sample for sample in _samples(file) if not sample[2]), None)
        if first is None:
            problem = next(_samples(file), ("", {}, [("", "it is empty", "")]))[2][0][1]
            raise DataSourceError(f"{file.path}: no sample of a tar file can be read ({problem}). See docs/data.md.")
        columns, problems = _columns_of(first[1])
        if not problems:
            choose_columns(list(columns), values, f"{file.path}, sample {first[0]!r},", _NAMES)
    return {"files": state_of(files)} | values_of(TABLE_OPTIONS, values)


WEBDATASET = DataSource(
    name="webdataset",
    summary="tar files in the layout of WebDataset",
    options=(
        Option("webdataset", str, None, "tar file, or folder of them; a path or gs://", required=True),
        *TABLE_OPTIONS,
    ),
    identity=_identity,
    open=open_webdataset,
)
