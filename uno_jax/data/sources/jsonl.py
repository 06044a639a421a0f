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
from uno_jax.data.records import SPLITS
from uno_jax.data.sources.pictures import read_picture
from uno_jax.data.sources.source import (
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
from uno_jax.process.json_reader import JsonError, parse_json

TASKS = ("text_to_image", "editing", "understanding")
FIELDS = ("id", "task", "image", "prompt", "captions", "sources", "answer")
_LINES_AT_A_TIME = 256


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
            record = parse_json(file.readline())
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
    """Yields line number (from 1), byte offset and content of each non-empty line."""
    offset = 0
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, offset, line
            offset += len(line)


def _check_line(line: bytes, images: Path, max_pixels: int) -> tuple[dict[str, Any], list[tuple[str, str, str]]]:
    """Returns the record of a line and its problems as (field, problem, remedy)."""
    remedy = "Write one JSON object per line, as UTF-8 text"
    try:
        record = parse_json(line)
    except JsonError as error:
        return {}, [("(line)", str(error), remedy)]
    if not isinstance(record, dict):
        return {}, [("(line)", f"a JSON {type(record).__name__}, not an object", remedy)]
    problems = [
        (field, "no such field", f"Use the fields {', '.join(FIELDS)}") for field in record if field not in FIELDS
    ]
    task = record.get("task", TASKS[0])
    if task not in TASKS:
        problems.append(("task", f"unknown task {task!r}", f"Use one of {', '.join(TASKS)}"))
        return record, problems
    problems += _text_problems(record, task)
    problems += _picture_problems(record, task, images, max_pixels)
    return record, problems


def _text_problems(record: dict[str, Any], task: str) -> Iterator[tuple[str, str, str]]:
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


def _picture_problems(
    record: dict[str, Any], task: str, images: Path, max_pixels: int
) -> Iterator[tuple[str, str, str]]:
    sources = record.get("sources", [])
    if not isinstance(sources, list):
        yield "sources", f"a {type(sources).__name__}, not a list", "Write a list of picture paths"
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
            yield field, error.problem, error.remedy
    for field, content in contents.items():
        if field != "image" and content == contents.get("image"):
            yield field, "the same picture as the target", "Give the picture before the edit"


def _same(one: str, other: str) -> bool:
    return " ".join(one.split()).casefold() == " ".join(other.split()).casefold()


def _identity(values: Values) -> dict[str, object]:
    jsonl, images = Path(values["jsonl"]), Path(values["images"])
    if not jsonl.is_file():
        raise DataSourceError(f"--jsonl: there is no file {jsonl}. Give the JSONL file of your records.")
    if not images.is_dir():
        raise DataSourceError(f"--images: there is no folder {images}. Give the base folder of the picture paths.")
    return {
        "test_fraction": values["test_fraction"],
        "max_picture_pixels": values["max_picture_pixels"],
        "records": hashlib.sha256(jsonl.read_bytes()).hexdigest(),
        "images": _folder_state(images),
    }


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
        Option("jsonl", str, None, "file of records, one JSON object per line", required=True),
        Option("images", str, None, "base folder of the picture paths", required=True),
        Option("max_picture_pixels", int, LARGEST_PICTURE, "maximum number of pixels of a picture", minimum=1),
        TEST_FRACTION,
    ),
    identity=_identity,
    open=open_jsonl,
)
