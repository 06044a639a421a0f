"""JSONL files in BAGEL's and LLaVA's layout of questions on pictures: `conversations`. See `docs/data.md`."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from etils import epath

from uno_jax.data.sources.columns import IGNORE
from uno_jax.data.sources.lines import parse_line, read_lines
from uno_jax.data.sources.locations import file_hash, folder_state, records_and_images
from uno_jax.data.sources.pictures import read_picture
from uno_jax.data.sources.rows import Row, open_rows, picture_limits
from uno_jax.data.sources.schema import IMAGES, PICTURE_OPTIONS, Problem
from uno_jax.data.sources.source import TEST_FRACTION, DataSource, Opened, Option, Reporter, Values

_ASKS, _ANSWERS = ("human", "user"), ("gpt", "assistant")
_PLACE = "<image>"


def open_conversations(values: Values, reporter: Reporter) -> Opened:
    """Opens the file `values["conversations"]` with the pictures in `values["images"]`."""
    path, images = _places(values)
    ignored = {name.strip() for name in values["ignore"].split(",")}
    load = partial(read_picture, images, limits=picture_limits(values))
    rows, total = partial(_rows, path, ignored), sum(1 for _ in read_lines(path))
    return open_rows([rows], values, description=f"Conversations of {path.name}.", load=load, total=total)


def _rows(path: Path | epath.Path, ignored: Collection[str]) -> Iterator[Row]:
    for number, _, line in read_lines(path):
        given, problems = parse_line(line)
        yield Row(path.name, number, {}, problems) if problems else _row(path.name, number, given, ignored)


def _row(file: str, number: int, given: dict[str, Any], ignored: Collection[str]) -> Row:
    """Returns the row of a line: the picture, and pairs of question and answer."""
    id_ = given.get("id")
    fields: dict[str, Any] = {"id": str(id_) if isinstance(id_, int) else id_, "task": "understanding"}
    problems: list[Problem] = [
        (name, "no such field", f"Remove it, or leave it out with --ignore={name}")
        for name in given
        if name not in ("id", "image", "conversations", "video") and not {name, "rest"} & set(ignored)
    ]
    if given.get("video"):
        problems.append(("video", "a video", "Only pictures are read", "video"))
    images = given.get("image")
    if isinstance(images, list):
        if len(images) > 1:
            problems.append(
                ("image", f"{len(images):,} pictures", "Give one for each conversation", "several_pictures")
            )
        images = images[0] if images else None
    if images is None and not given.get("video"):
        problems.append(("image", "no picture", "Every conversation needs one", "no_picture"))
    turns, found = _turns(given.get("conversations"))
    problems += found
    return Row(file, number, fields | {"image": images, "turns": turns}, tuple(problems))


def _turns(given: Any) -> tuple[list[list[str]], list[Problem]]:
    if not isinstance(given, list) or not given or len(given) % 2:
        return [], [("conversations", "no list of questions, each with an answer", "Write pairs of human and gpt")]
    texts: list[str] = []
    places = 0
    for number, said in enumerate(given):
        who, text = (said.get("from"), said.get("value")) if isinstance(said, dict) else (None, None)
        expected = _ANSWERS if number % 2 else _ASKS
        if who not in expected or not isinstance(text, str):
            field = f"conversations[{number}]"
            return [], [(field, f"not a text from {expected[0]}", "Write pairs of human and gpt")]
        if not number % 2:
            places += text.count(_PLACE)
            text = "\n".join(part.strip() for part in text.split(_PLACE) if part.strip())
        texts.append(text)
    if places > 1:
        return [], [("conversations", f"{places} times {_PLACE}", "Give one for each conversation", "several_pictures")]
    return [list(pair) for pair in zip(texts[::2], texts[1::2], strict=True)], []


def _places(values: Values) -> tuple[Path | epath.Path, Path | epath.Path]:
    return records_and_images("conversations", values, "a JSONL file of conversations")


def _identity(values: Values) -> dict[str, object]:
    path, images = _places(values)
    options = ("test_fraction", "ignore", *(option.name for option in PICTURE_OPTIONS))
    return {"records": file_hash(path), "images": folder_state("images", images)} | {
        name: values[name] for name in options
    }


CONVERSATIONS = DataSource(
    name="conversations",
    summary="questions on pictures in BAGEL's JSONL layout",
    options=(
        Option("conversations", str, None, "JSONL file of conversations; a path or gs://", required=True),
        IMAGES,
        IGNORE,
        *PICTURE_OPTIONS,
        TEST_FRACTION,
    ),
    identity=_identity,
    open=open_conversations,
)
