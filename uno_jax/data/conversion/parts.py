"""Parts of a source: consecutive items, which one process turns into encoded records.

The encoded records of a part are in one file, `part-<piece>-<number>.bin`, and what is known of them in another one,
`part-<piece>-<number>.json`, which appears last. A process that was killed therefore leaves nothing but whole parts.
The second file holds a checksum of both, so that what a disk damages until the command goes on is noticed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from etils import epath

from uno_jax.config import to_json
from uno_jax.data.decoding import picture_size
from uno_jax.data.record import Record
from uno_jax.data.sources.pictures import Rewritten
from uno_jax.data.sources.source import Made, Rejection
from uno_jax.data.storage import serialize, store
from uno_jax.process.errors import say
from uno_jax.process.json_reader import JsonError, parse_json

RECORDS_PER_PART = 256
_LARGEST_PART = 2**26  # bytes


PartNumber = tuple[int, int]
"""The number of a piece of the source, and of a part within it."""

Folder: TypeAlias = "Path | epath.Path"
"""A folder of this machine, or a URL."""


@dataclass(frozen=True)
class Part:
    """Consecutive items of a piece of a source."""

    number: PartNumber
    items: tuple[Any, ...]


@dataclass(frozen=True)
class Facts:
    """What is known of a record without its pictures."""

    id: str
    task: str
    prompt: str
    captions: tuple[str, ...]
    answer: str
    sizes: tuple[tuple[int, int], ...]
    """Width and height of each picture, the target first."""
    rewritten: tuple[str, ...]
    """Why pictures were rewritten: `converted` or `scaled` for each of those that were."""
    bytes: int
    """Length of the encoded record."""


@dataclass(frozen=True)
class Converted:
    """What became of an item: as `Made`, with the facts of the records."""

    split: str
    id: str
    file: str
    line: int
    records: tuple[Facts, ...]
    rejections: tuple[Rejection, ...]


def parts_of(pieces: Iterable[Callable[[], Iterable[Any]]], items_per_part: int = RECORDS_PER_PART) -> Iterator[Part]:
    """Yields the parts of a source, in order."""
    for number, piece in enumerate(pieces):
        yield from parts_of_piece(number, piece, items_per_part)


def parts_of_piece(number: int, piece: Callable[[], Iterable[Any]], items_per_part: int) -> Iterator[Part]:
    """Yields the parts of a piece. They have at most so many items, and about 64 MiB unless one item has more."""
    some: list[Any] = []
    size = count = 0
    for item in piece():
        own = _size(item)
        if some and (size + own > _LARGEST_PART or len(some) == items_per_part):
            yield Part((number, count), tuple(some))
            some, size, count = [], 0, count + 1
        some.append(item)
        size += own
    if some:
        yield Part((number, count), tuple(some))


@dataclass(frozen=True)
class ConvertParts:
    """Converts parts and stores them in a folder. Picklable."""

    folder: Folder
    make: Callable[[Any], Made]

    def __call__(self, part: Part) -> PartNumber:
        """Converts a part, unless that was done before or it has no items. Returns its number."""
        if part.items and not is_converted(self.folder, part.number):
            found, contents = [], []
            for item in part.items:
                converted, encoded = convert(self.make(item))
                found.append(converted)
                contents += encoded
            records, items = b"".join(contents), to_json(found)
            store(part_file(self.folder, part.number), records)
            about = {"sha256": _checksum(records, items), "items": items}
            store(about_file(self.folder, part.number), json.dumps(about).encode())
        return part.number


def convert(made: Made) -> tuple[Converted, list[bytes]]:
    """Returns the facts of what was made of an item, and its encoded records."""
    encoded = [serialize(record) for record in made.records]
    facts = tuple(_facts(record, len(content)) for record, content in zip(made.records, encoded, strict=True))
    return Converted(made.split, made.id, made.file, made.line, facts, made.rejections), encoded


def read_about(folder: Folder, number: PartNumber) -> list[Converted]:
    """Returns what became of each item of a converted part."""
    return [_converted(entry) for entry in parse_json(about_file(folder, number).read_bytes())["items"]]


def is_converted(folder: Folder, number: PartNumber) -> bool:
    """Whether a part is there and whole: every bit of both files is as it was written."""
    about, file = about_file(folder, number), part_file(folder, number)
    if not (about.is_file() and file.is_file()):
        return False
    try:
        found = parse_json(about.read_bytes())
        return bool(found["sha256"] == _checksum(file.read_bytes(), found["items"]))
    except (JsonError, KeyError, TypeError):
        return False


def is_missing(folder: Folder, number: PartNumber) -> bool:
    """Whether a part is to be converted. Says so if that was done before, and the part was damaged since."""
    missing = not is_converted(folder, number)
    if missing and about_file(folder, number).is_file():
        say(f"{part_file(folder, number)}: damaged since it was written, or missing; converted again")
    return missing


def _checksum(records: bytes, items: Any) -> str:
    """Returns a hash of the encoded records of a part and of its facts."""
    return hashlib.sha256(records + json.dumps(items).encode()).hexdigest()


def converted_parts(folder: Folder) -> list[PartNumber]:
    """Returns the numbers of the converted parts in a folder, in order."""
    names = sorted(path.name for path in folder.glob("part-*.json"))
    return [(int(piece), int(count)) for _, piece, count in (name.removesuffix(".json").split("-") for name in names)]


def part_file(folder: Folder, number: PartNumber) -> Folder:
    """Returns the file of the encoded records of a part, one after the other."""
    return folder / f"part-{number[0]:08d}-{number[1]:08d}.bin"


def about_file(folder: Folder, number: PartNumber) -> Folder:
    """Returns the file of the facts of a part."""
    return folder / f"part-{number[0]:08d}-{number[1]:08d}.json"


def _facts(record: Record, length: int) -> Facts:
    pictures = (record.image, *record.sources)
    sizes = tuple(picture_size(picture, record.id, max_pixels=2**62) for picture in pictures)
    rewritten = tuple(picture.why for picture in pictures if isinstance(picture, Rewritten))
    return Facts(record.id, record.task, record.prompt, record.captions, record.answer, sizes, rewritten, length)


def _converted(entry: Mapping[str, Any]) -> Converted:
    records = tuple(
        Facts(
            **{
                **facts,
                "captions": tuple(facts["captions"]),
                "rewritten": tuple(facts["rewritten"]),
                "sizes": tuple((width, height) for width, height in facts["sizes"]),
            }
        )
        for facts in entry["records"]
    )
    rejections = tuple(Rejection(**rejection) for rejection in entry["rejections"])
    return Converted(**{**entry, "records": records, "rejections": rejections})


def _size(value: Any) -> int:
    """Returns the bytes of contents and texts in an item."""
    if isinstance(value, (bytes, str)):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(_size, value.values()))
    if isinstance(value, (list, tuple)):
        return sum(map(_size, value))
    return sum(map(_size, vars(value).values())) if dataclasses.is_dataclass(value) else 0
