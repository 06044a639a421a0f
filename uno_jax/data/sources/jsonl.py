"""The user's own data: a JSONL file with one record per line, and a folder of pictures. See `docs/data.md`.

Every record is checked before anything is written. A rejection names the line and the field, the problem and the
remedy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from uno_jax.data.decoding import LARGEST_PICTURE, PictureError
from uno_jax.data.record import Record
from uno_jax.data.sources.pictures import read_picture
from uno_jax.data.sources.source import (
    SPLITS,
    TEST_FRACTION,
    DataSource,
    DataSourceError,
    Opened,
    Option,
    Rejection,
    Reporter,
    Values,
    split_of,
)
from uno_jax.process.json_reader import JsonError, half_pair, parse_json

TASKS = ("text_to_image", "editing", "understanding")
FIELDS = ("id", "task", "image", "prompt", "captions", "sources", "answer")
_LINES_AT_A_TIME = 256
_LONGEST_LINE = 2**20  # bytes; a longer line is read in parts of this size
_MOST_SOURCES = 64

# What people have instead of JSONL: beginning of the file, its name, and how to convert it.
_OTHER_FORMATS = (
    (b"PAR1", "Parquet", "pandas.read_parquet({name!r}).to_json({out!r}, orient='records', lines=True)"),
    (b"ARROW1", "Arrow", "pandas.read_feather({name!r}).to_json({out!r}, orient='records', lines=True)"),
    (b"\x1f\x8b", "gzip", "gunzip {name}"),
    (b"PK\x03\x04", "a zip archive, such as XLSX", "export it as CSV, and then to JSONL"),
    (b"[", "one JSON list", "pandas.read_json({name!r}).to_json({out!r}, orient='records', lines=True)"),
)
Problem = tuple[str, str, str] | tuple[str, str, str, str]
"""Field, problem, remedy, and optionally the cause under which it is counted."""
_CSV = "pandas.read_csv({name!r}).to_json({out!r}, orient='records', lines=True)"


@dataclass(frozen=True)
class Accepted:
    """A valid record: the byte offset of its line in the file, its id and its task."""

    offset: int
    id: str
    task: str


@dataclass(frozen=True)
class CheckedFile:
    """Result of checking a JSONL file. A record with at least one rejection is skipped; it may have several."""

    accepted: tuple[Accepted, ...]
    rejections: tuple[Rejection, ...]


def open_jsonl(values: Values, reporter: Reporter) -> Opened:
    """Checks the file `values["jsonl"]` with the pictures in `values["images"]`, and splits its accepted records."""
    jsonl, images = Path(values["jsonl"]), Path(values["images"])
    advance = reporter.begin("Checking records", sum(1 for _ in _lines(jsonl)))
    largest = values["max_picture_pixels"]
    checked = check_jsonl(jsonl, images, advance, max_pixels=largest)
    for rejection in checked.rejections:
        reporter.reject(rejection)
    members: dict[str, list[Accepted]] = {split: [] for split in SPLITS}
    for entry in checked.accepted:
        members[split_of(entry.id, values["test_fraction"])].append(entry)
    return Opened(
        splits={
            split: partial(read_records, jsonl, images, entries, max_pixels=largest)
            for split, entries in members.items()
            if entries
        },
        total=len(checked.accepted),
        description=f"Records of {jsonl.name}.",
        license="The license of the original pictures and texts.",
    )


def check_jsonl(
    jsonl: str | Path,
    images: str | Path,
    on_record: Callable[[], None] = lambda: None,
    *,
    max_pixels: int = LARGEST_PICTURE,
) -> CheckedFile:
    """Checks every record of a JSONL file and decodes every picture it refers to.

    Args:
      jsonl: the file. Empty lines are skipped.
      images: the base folder of picture paths.
      on_record: called after each record, for a progress bar.
      max_pixels: maximum number of pixels of a picture.

    Raises:
      FileNotFoundError: the file or the folder does not exist.
    """
    jsonl, images = Path(jsonl), Path(images)
    if not jsonl.is_file():
        raise FileNotFoundError(f"{jsonl}: no such file. Give the JSONL file of your records.")
    if not images.is_dir():
        raise FileNotFoundError(f"{images}: no such folder. Give the base folder of the picture paths.")
    accepted: list[Accepted] = []
    rejections: list[Rejection] = []
    first_line: dict[str, int] = {}
    lines = _lines(jsonl)
    with ThreadPoolExecutor() as threads:
        while batch := list(islice(lines, _LINES_AT_A_TIME)):
            checked = threads.map(lambda item: _check_line(item[2], images, max_pixels), batch)
            for (number, offset, _), (record, problems) in zip(batch, checked, strict=True):
                given = record.get("id")
                id_ = given if isinstance(given, str) else ""
                if id_ and first_line.setdefault(id_, number) != number:
                    again = f"line {first_line[id_]} already has the id {id_!r}"
                    problems = [("id", again, "Give every record a unique id"), *problems]
                rejections += [Rejection(jsonl.name, number, id_, *problem) for problem in problems]
                if not problems:
                    accepted.append(Accepted(offset, id_, record.get("task", TASKS[0])))
                on_record()
    return CheckedFile(tuple(accepted), tuple(rejections))


def read_records(
    jsonl: str | Path, images: str | Path, accepted: Sequence[Accepted], *, max_pixels: int = LARGEST_PICTURE
) -> Iterator[Record]:
    """Yields the accepted records of a checked file, in order. Reads the pictures of one record at a time."""
    with open(jsonl, "rb") as file:
        for entry in accepted:
            file.seek(entry.offset)
            record = _present(parse_json(file.readline(_LONGEST_LINE + 1)))
            yield Record(
                id=entry.id,
                task=entry.task,
                image=read_picture(Path(images), record["image"], max_pixels),
                prompt=record["prompt"],
                captions=tuple(record.get("captions", ())),
                sources=tuple(read_picture(Path(images), source, max_pixels) for source in record.get("sources", ())),
                answer=record.get("answer", ""),
            )


def _lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Yields line number (from 1), byte offset and content of each non-empty line, without what follows its maximum."""
    number = offset = 0
    with open(path, "rb") as file:
        while line := file.readline(_LONGEST_LINE + 1):
            number += 1
            length, part = len(line), line
            while len(part) > _LONGEST_LINE and not part.endswith(b"\n"):
                part = file.readline(_LONGEST_LINE + 1)
                length += len(part)
            if line.strip():
                yield number, offset, line
            offset += length


def _check_line(line: bytes, images: Path, max_pixels: int) -> tuple[dict[str, Any], list[Problem]]:
    """Returns the record of a line, and its problems."""
    remedy = "Write one JSON object per line, as UTF-8 text"
    if len(line) > _LONGEST_LINE:
        return {}, [("(line)", f"more than {_LONGEST_LINE:,} bytes", remedy)]
    try:
        record = parse_json(line)
    except JsonError as error:
        return {}, [("(line)", str(error), remedy)]
    if not isinstance(record, dict):
        return {}, [("(line)", f"a JSON {type(record).__name__}, not an object", remedy)]
    if (half := half_pair(record)) is not None:
        return {}, [(half, "half of a surrogate pair, which is no valid Unicode", "Write the whole character")]
    record = _present(record)
    problems: list[Problem] = [
        (field, "no such field", f"Use the fields {', '.join(FIELDS)}") for field in record if field not in FIELDS
    ]
    task = record.get("task", TASKS[0])
    if task not in TASKS:
        problems.append(("task", f"unknown task {task!r}", f"Use one of {', '.join(TASKS)}"))
        return record, problems
    problems += _text_problems(record, task)
    problems += _picture_problems(record, task, images, max_pixels)
    return record, problems


def _present(record: dict[str, Any]) -> dict[str, Any]:
    """Removes null fields, which are absent."""
    return {field: value for field, value in record.items() if value is not None}


def _text_problems(record: dict[str, Any], task: str) -> Iterator[Problem]:
    required = {"id": True, "prompt": task != "understanding", "answer": task == "understanding"}
    for field, must in required.items():
        value = record.get(field, "")
        if not isinstance(value, str):
            yield field, f"a {type(value).__name__}, not text", "Write a string in double quotes"
        elif must and not value.strip():
            yield field, "missing or empty", f"Every {task} record needs this field"
    if "prompt" not in record and task == "understanding":
        yield "prompt", "missing", 'Write the question, or "" if there is none'
    if task != "understanding" and record.get("answer"):
        yield "answer", f"{task} records have no answer", "Remove it, or set the task to understanding"
    captions = record.get("captions", [])
    if not isinstance(captions, list):
        yield "captions", f"a {type(captions).__name__}, not a list", "Write a list of strings"
        return
    if task == "understanding" and captions:
        yield "captions", "understanding records have no captions", "Remove them. Only the answer is trained"
    for index, caption in enumerate(captions):
        field = f"captions[{index}]"
        if not isinstance(caption, str) or not caption.strip():
            yield field, "empty, or not text", "Write a text, or remove it"
        elif isinstance(record.get("prompt"), str) and _same(caption, record["prompt"]):
            yield field, "the same as the prompt", "Rephrase it, or remove it"


def _picture_problems(record: dict[str, Any], task: str, images: Path, max_pixels: int) -> Iterator[Problem]:
    sources = record.get("sources", [])
    if not isinstance(sources, list):
        yield "sources", f"a {type(sources).__name__}, not a list", "Write a list of picture paths"
        sources = []
    elif len(sources) > _MOST_SOURCES:
        yield "sources", f"{len(sources):,} pictures", f"Give at most {_MOST_SOURCES}"
        sources = []
    elif task == "editing" and not sources:
        yield "sources", "missing or empty", "An editing record needs the pictures to edit"
    elif task != "editing" and sources:
        yield "sources", f"{task} records have no sources", "Remove them, or set the task to editing"
    contents = {}
    for field, path in [("image", record.get("image", "")), *((f"sources[{i}]", s) for i, s in enumerate(sources))]:
        try:
            contents[field] = read_picture(images, path, max_pixels)
        except PictureError as error:
            yield field, error.problem, error.remedy, error.cause
    for field, content in contents.items():
        if field != "image" and content == contents.get("image"):
            yield field, "the same picture as the target", "Give the picture before the edit"


def _same(one: str, other: str) -> bool:
    return " ".join(one.split()).casefold() == " ".join(other.split()).casefold()


def _identity(values: Values) -> dict[str, object]:
    jsonl, images = Path(values["jsonl"]), Path(values["images"])
    if not jsonl.is_file():
        raise DataSourceError(f"--jsonl: there is no file {jsonl}. Give the JSONL file of your records.")
    _check_format(jsonl)
    if not images.is_dir():
        raise DataSourceError(f"--images: there is no folder {images}. Give the base folder of the picture paths.")
    return {
        "test_fraction": values["test_fraction"],
        "max_picture_pixels": values["max_picture_pixels"],
        "records": hashlib.sha256(jsonl.read_bytes()).hexdigest(),
        "images": _folder_state(images),
    }


def _check_format(jsonl: Path) -> None:
    """Refuses files of other formats, with the way to convert them, instead of every line of them."""
    with jsonl.open("rb") as file:
        start = file.read(2**16).removeprefix(b"\xef\xbb\xbf").lstrip()
    found = [(kind, how) for magic, kind, how in _OTHER_FORMATS if start.startswith(magic)]
    first, _, _ = start.partition(b"\n")
    if not found and b"{" not in first and (b"," in first or b"\t" in first):
        found = [("CSV", _CSV)]
    for kind, how in found:
        convert = how.format(name=str(jsonl), out=str(jsonl.with_suffix(".jsonl")))
        raise DataSourceError(
            f"--jsonl: {jsonl} is {kind}, and not JSONL (one JSON object per line). To convert it: {convert}"
        )


def _folder_state(folder: Path) -> str:
    """Returns a hash of the names, sizes and modification times of a folder's files, without reading them."""
    state = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            stat = path.stat()
            state.update(f"{path.relative_to(folder)}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return state.hexdigest()


JSONL = DataSource(
    name="jsonl",
    summary="your own records: a JSONL file and a folder of pictures",
    options=(
        Option("jsonl", Path, None, "file of records, one JSON object per line", required=True),
        Option("images", Path, None, "base folder of the picture paths", required=True),
        Option("max_picture_pixels", int, LARGEST_PICTURE, "maximum number of pixels of a picture", minimum=1),
        TEST_FRACTION,
    ),
    identity=_identity,
    open=open_jsonl,
)
