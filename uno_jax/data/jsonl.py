"""A user's own data: a JSONL file, one record a line, and a folder of pictures. `docs/data.md` states the record.

Every record is checked before anything is written; what is refused is named with its line, its field, what is wrong
and what to do about it.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from PIL import ExifTags, Image

from uno_jax.data.record import Record
from uno_jax.data.transforms import MORE_THAN_8_BITS, rgb_pixels
from uno_jax.process.json_reader import JsonError, parse_json

TASKS = ("text_to_image", "editing", "understanding")
FIELDS = ("id", "task", "image", "prompt", "captions", "sources", "answer")
_LINES_AT_A_TIME = 256


@dataclass(frozen=True)
class Refusal:
    """One thing that is wrong with one record."""

    file: str
    line: int
    id: str
    """Empty when the record has none."""
    field: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        record = f" record {self.id!r}," if self.id else ""
        return f"{self.file}:{self.line}:{record} field {self.field!r}: {self.problem}. {self.remedy}."


@dataclass(frozen=True)
class Accepted:
    """A record that passed: where its line starts in the file, in bytes, its id and its task."""

    offset: int
    id: str
    task: str


@dataclass(frozen=True)
class CheckedFile:
    """What checking a JSONL file found. A record may have several refusals; one is enough to leave it out."""

    accepted: tuple[Accepted, ...]
    refusals: tuple[Refusal, ...]

    @property
    def refused_records(self) -> int:
        return len({refusal.line for refusal in self.refusals})


class PictureError(Exception):
    """A picture that cannot be used, and what to do: `problem`, `remedy`."""

    def __init__(self, problem: str, remedy: str):
        super().__init__(f"{problem}. {remedy}.")
        self.problem, self.remedy = problem, remedy


def check_jsonl(jsonl: str | Path, images: str | Path, on_record: Callable[[], None] = lambda: None) -> CheckedFile:
    """Checks every record of a JSONL file, and decodes every picture it names.

    Args:
      jsonl: the file. Empty lines are skipped.
      images: the folder that picture paths are relative to.
      on_record: called after each record, for a progress bar.

    Raises:
      FileNotFoundError: the file or the folder does not exist.
    """
    jsonl, images = Path(jsonl), Path(images)
    if not jsonl.is_file():
        raise FileNotFoundError(f"{jsonl}: there is no such file. Give the JSONL file of your records.")
    if not images.is_dir():
        raise FileNotFoundError(f"{images}: there is no such folder. Give the folder that picture paths start from.")
    accepted: list[Accepted] = []
    refusals: list[Refusal] = []
    first_line: dict[str, int] = {}
    lines = _lines(jsonl)
    with ThreadPoolExecutor() as threads:
        while batch := list(islice(lines, _LINES_AT_A_TIME)):
            checked = threads.map(lambda item: _check_line(item[2], images), batch)
            for (number, offset, _), (record, problems) in zip(batch, checked, strict=True):
                given = record.get("id")
                id_ = given if isinstance(given, str) else ""
                if id_ and first_line.setdefault(id_, number) != number:
                    again = f"line {first_line[id_]} has the id {id_!r} already"
                    problems = [("id", again, "Give every record an id of its own"), *problems]
                refusals += [Refusal(jsonl.name, number, id_, *problem) for problem in problems]
                if not problems:
                    accepted.append(Accepted(offset, id_, record.get("task", TASKS[0])))
                on_record()
    return CheckedFile(tuple(accepted), tuple(refusals))


def read_records(jsonl: str | Path, images: str | Path, accepted: Sequence[Accepted]) -> Iterator[Record]:
    """The accepted records of a file that has been checked, in order. Pictures are read one record at a time."""
    with open(jsonl, "rb") as file:
        for entry in accepted:
            file.seek(entry.offset)
            record = parse_json(file.readline())
            yield Record(
                id=entry.id,
                task=entry.task,
                image=_read_picture(Path(images), record["image"]),
                prompt=record["prompt"],
                captions=tuple(record.get("captions", ())),
                sources=tuple(_read_picture(Path(images), source) for source in record.get("sources", ())),
                answer=record.get("answer", ""),
            )


def split_of(id_: str, test_fraction: float) -> str:
    """`train` or `test`, by the id alone: adding records moves none from one split to the other."""
    number = int.from_bytes(hashlib.sha256(id_.encode()).digest()[:8], "big")
    return "test" if number < test_fraction * 2**64 else "train"


def encode_rgb(encoded: bytes) -> bytes:
    """An 8-bit RGB picture, PNG or JPEG. One that is so already, and upright, is returned unchanged.

    Transparency is pasted on white, and the orientation of a photo is applied.

    Raises:
      PictureError: it cannot be decoded, or is not an 8-bit picture.
    """
    try:
        with Image.open(io.BytesIO(encoded)) as picture:
            picture.load()
            if picture.mode in MORE_THAN_8_BITS:
                raise PictureError(f"{picture.mode} pixels, more than 8 bits each", "Convert the picture to 8 bits")
            upright = picture.getexif().get(ExifTags.Base.Orientation, 1) == 1
            plain = picture.mode == "RGB" and "transparency" not in picture.info
            if picture.format in ("PNG", "JPEG") and upright and plain:
                return encoded
            rgb = Image.fromarray(rgb_pixels(picture))
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        problem = f"the picture cannot be decoded ({str(error).rstrip('.') or type(error).__name__})"
        raise PictureError(problem, "Replace the file, or leave the record out") from error
    buffer = io.BytesIO()
    rgb.save(buffer, "PNG")
    return buffer.getvalue()


def _lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Number from 1, offset in bytes, and bytes of each line that is not empty."""
    offset = 0
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, offset, line
            offset += len(line)


def _check_line(line: bytes, images: Path) -> tuple[dict[str, Any], list[tuple[str, str, str]]]:
    """The record of a line, and its problems: field, what is wrong, what to do."""
    remedy = "Write one JSON object a line, as UTF-8 text"
    try:
        record = parse_json(line)
    except JsonError as error:
        return {}, [("(line)", str(error), remedy)]
    if not isinstance(record, dict):
        return {}, [("(line)", f"a JSON {type(record).__name__}, not an object", remedy)]
    problems = [
        (field, "there is no such field", f"Use the fields {', '.join(FIELDS)}")
        for field in record
        if field not in FIELDS
    ]
    task = record.get("task", TASKS[0])
    if task not in TASKS:
        problems.append(("task", f"{task!r} is no task", f"Use one of {', '.join(TASKS)}"))
        return record, problems
    problems += _text_problems(record, task)
    problems += _picture_problems(record, task, images)
    return record, problems


def _text_problems(record: dict[str, Any], task: str) -> Iterator[tuple[str, str, str]]:
    required = {"id": True, "prompt": task != "understanding", "answer": task == "understanding"}
    for field, must in required.items():
        value = record.get(field, "")
        if not isinstance(value, str):
            yield field, f"a {type(value).__name__}, not text", "Write it as text between double quotes"
        elif must and not value.strip():
            yield field, "missing or empty", f"Every {task} record needs it"
    if "prompt" not in record and task == "understanding":
        yield "prompt", "missing", 'Write the question, or "" if there is none'
    if task != "understanding" and record.get("answer"):
        yield "answer", f"{task} records have no answer", "Remove it, or set the task to understanding"
    captions = record.get("captions", [])
    if not isinstance(captions, list):
        yield "captions", f"a {type(captions).__name__}, not a list", "Write a list of texts"
        return
    if task == "understanding" and captions:
        yield "captions", "understanding records have no captions", "Remove them; the answer is what is trained"
    for index, caption in enumerate(captions):
        field = f"captions[{index}]"
        if not isinstance(caption, str) or not caption.strip():
            yield field, "empty, or not text", "Write a text, or remove it"
        elif isinstance(record.get("prompt"), str) and _same(caption, record["prompt"]):
            yield field, "the same as the prompt", "Say it in other words, or remove it"


def _picture_problems(record: dict[str, Any], task: str, images: Path) -> Iterator[tuple[str, str, str]]:
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
            contents[field] = _read_picture(images, path)
        except PictureError as error:
            yield field, error.problem, error.remedy
    for field, content in contents.items():
        if field != "image" and content == contents.get("image"):
            yield field, "the same picture as the target", "Give the picture before the edit"


def _read_picture(images: Path, path: Any) -> bytes:
    """The picture at `path` below the folder, RGB. Raises PictureError."""
    if not isinstance(path, str) or not path.strip():
        raise PictureError("missing, empty, or not text", "Write the path of a picture, relative to the image folder")
    relative = "Write it relative to the image folder"
    if PurePosixPath(path).is_absolute() or PureWindowsPath(path).is_absolute():
        raise PictureError(f"{path!r} is an absolute path", relative)
    try:
        full = (images / path).resolve()
        if not full.is_relative_to(images.resolve()):
            raise PictureError(f"{path!r} leads out of the image folder", relative)
        encoded = full.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise PictureError(f"{path!r} cannot be read ({reason})", f"Put the file into {images.name}/") from error
    return encode_rgb(encoded)


def _same(one: str, other: str) -> bool:
    return " ".join(one.split()).casefold() == " ".join(other.split()).casefold()
