"""The record beside the pictures of a benchmark: everything that they depend on, in `record.json`."""

from __future__ import annotations

import json
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from uno_jax.evaluation.benchmark import BenchmarkError, Item
from uno_jax.process.files import write_json
from uno_jax.process.json_reader import read_json_object

RECORD = "record.json"
_FORMAT = 1
_FIXED = ("benchmark", "preset", "name", "checkpoint", "dtype", "settings", "thoughts", "prefix", "data")
"""Fields that all pictures of a folder share."""

_FREE = ("checkpoint.name", "checkpoint.files", "data.files", "data.items")
"""Parts of these that may change: the place of a checkpoint, which its name depends on, and how many items are made."""


class Made(NamedTuple):
    """A picture of a benchmark."""

    item: str
    sample: int
    seed: int
    file: str
    """Path below the output folder."""


class Record(NamedTuple):
    """The content of `record.json`."""

    head: dict[str, Any]
    """Everything except items and pictures, as JSON."""
    items: list[Item]
    pictures: list[Made]
    """All pictures that are expected, made or not."""

    def missing(self, out: Path, known: Container[Made] = ()) -> list[Made]:
        """Returns the expected pictures that a folder lacks.

        Args:
          out: the folder.
          known: pictures that other hosts have made. A network file system may not show them here yet.
        """
        return [picture for picture in self.pictures if picture not in known and not (out / picture.file).is_file()]


def write_record(out: Path, record: Record, known: Container[Made] = ()) -> list[Made]:
    """Writes `record.json`, with the number of pictures that exist now, and returns those that are missing.

    Processes that share a folder without knowing of each other (`--part`) all write it. Each counts again afterwards,
    so that the last file states all pictures.
    """
    missing = record.missing(out, known)
    while True:
        _write(out, record, missing)
        if (now := record.missing(out, known)) == missing:
            return missing
        missing = now


def _write(out: Path, record: Record, missing: Sequence[Made]) -> None:
    unfinished = {picture.item for picture in missing}
    expected = {picture.item for picture in record.pictures}
    content = {
        "format": _FORMAT,
        **record.head,
        "items_made": len(expected - unfinished),
        "items_expected": len(expected),
        "pictures_made": len(record.pictures) - len(missing),
        "pictures_expected": len(record.pictures),
        "items": [_described(item) for item in record.items],
        "pictures": [picture._asdict() for picture in record.pictures],
    }
    write_json(out / RECORD, content)


def _described(item: Item) -> dict[str, Any]:
    source: dict[str, Any] = {} if item.source is None else {"source": item.source}
    more = {"more": list(item.more)} if item.more else {}
    questions = {"questions": list(item.questions)} if item.questions else {}
    return {"id": item.id, "prompt": item.prompt, "category": item.category, **source, **more, **questions}


def read_record(out: Path) -> Record:
    """Reads the record of a folder.

    Raises:
      BenchmarkError: there is none, or it is of another version.
    """
    file = out / RECORD
    if not file.is_file():
        raise BenchmarkError(f"{out}: there is no {RECORD}; give a folder that `evaluate generate` has written")
    content = read_json_object(file)
    if content.get("format") != _FORMAT:
        raise BenchmarkError(f"{file}: format is {content.get('format')!r}: expected {_FORMAT}; generate it again")
    try:
        items = [
            Item(
                each["id"],
                each["prompt"],
                each["category"],
                str(file),
                source=each.get("source"),
                more=tuple(each.get("more", ())),
                questions=tuple(each.get("questions", ())),
            )
            for each in content.pop("items")
        ]
        pictures = [Made(**each) for each in content.pop("pictures")]
    except (KeyError, TypeError) as error:
        raise BenchmarkError(f"{file}: an item or a picture is incomplete ({error}); generate it again") from error
    return Record(content, items, pictures)


def check_same(out: Path, head: Mapping[str, Any]) -> None:
    """Refuses to mix pictures: those of an existing record must have the settings of `head`.

    More pictures of each prompt may be added. With fewer, an official scorer would also read those that are left over.

    Raises:
      BenchmarkError: they differ. The message names the first field.
    """
    if not (out / RECORD).is_file():
        return
    before = read_record(out).head
    refuse_differences(out, "pictures", _FIXED, before, head)
    if before["samples"] > head["samples"]:
        raise BenchmarkError(
            f"{out} has {before['samples']:,} pictures of each prompt, not {head['samples']:,}; give another --out"
        )


def refuse_differences(
    out: Path, what: str, names: Sequence[str], before: Mapping[str, Any], now: Mapping[str, Any]
) -> None:
    """Refuses to mix results of a folder: fields that they depend on must be as before.

    Args:
      out: the folder.
      what: what it holds.
      names: the fields.
      before: fields of the results in the folder.
      now: fields of those that would be added.

    Raises:
      BenchmarkError: they differ. The message names the first field.
    """
    for name, old, new in _differences(names, before, now):
        raise BenchmarkError(
            f"{out} has {what} with {name} {_shown(old)}, not {_shown(new)}; give another --out, or remove this one"
        )


def _differences(
    names: Sequence[str], old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = ""
) -> list[tuple[str, Any, Any]]:
    found: list[tuple[str, Any, Any]] = []
    for name in names:
        before, after = old.get(name), new.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            found += _differences(list(before | after), before, after, f"{prefix}{name}.")
        elif before != after and f"{prefix}{name}" not in _FREE:
            found.append((f"{prefix}{name}", before, after))
    return found


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
