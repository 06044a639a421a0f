"""Prompts from a text file (one a line) or a JSONL file (one object a line): what is to be drawn, and how.

A line of a JSONL file may have these fields, and those of `PictureSettings`, which hold for it alone:

| field | meaning |
|---|---|
| `prompt` | what to draw, or how to change the pictures |
| `images` | paths of the pictures to change, relative to the file |
| `context` | in place of both: a list of texts and `{"image": path}`, in any order |
| `id` | name of the picture that is written, in place of its number |
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from uno_jax.config import ConfigError, from_config_dict, to_json
from uno_jax.inference.contexts import ContextPart, read_picture
from uno_jax.inference.generate import Generator, Request
from uno_jax.inference.picture_settings import PictureSettings
from uno_jax.process.errors import UserError
from uno_jax.process.json_reader import JsonError, parse_json

_FIELDS = ("prompt", "images", "context", "id")
_MOST_PROBLEMS = 20  # that a message lists
# Names of files are at most 255 bytes, and a seed, a suffix and a mark of a file that is being written come to an id.
_LONGEST_ID = 200


class PromptError(UserError):
    """Prompts that cannot be drawn: the message names each by file and line, and what to do."""


class Prompt(NamedTuple):
    """One prompt, and where it stands."""

    where: str
    """`prompts.jsonl:3`, for messages."""
    id: str
    request: Request

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(part for part in self.request.context if isinstance(part, str))

    @property
    def text(self) -> str:
        """Its texts as one, for people."""
        return " ".join(self.texts)

    @property
    def pictures(self) -> tuple[Path, ...]:
        return tuple(part for part in self.request.context if isinstance(part, Path))


def prompts_of_arguments(
    prompts: Sequence[str], images: Sequence[str | Path], settings: PictureSettings
) -> list[Prompt]:
    """Those of a command line; each prompt is about all of the pictures."""
    pictures = tuple(Path(image) for image in images)
    return [
        Prompt(f"--prompt {number}", _default_id(number, text), Request((*pictures, text), settings))
        for number, text in enumerate(prompts)
    ]


def read_prompts(file: str | Path, settings: PictureSettings) -> list[Prompt]:
    """The prompts of a file: JSONL where its name ends so, else text. Empty lines are skipped.

    `settings` are those of prompts that say nothing else.

    Raises:
      PromptError: the file cannot be read, is JSON by its name, holds nothing, or a line is wrong; all are named.
    """
    file = Path(file)
    if file.suffix.lower() in (".json", ".ndjson"):
        raise PromptError(f"{file}: prompts are read as text or as JSONL; with a JSON object a line, name it .jsonl")
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise PromptError(f"{file}: cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise PromptError(f"{file}: not UTF-8 text (byte {error.start + 1}); save it as UTF-8") from error
    prompts: list[Prompt] = []
    problems: list[str] = []
    seen: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{file}:{number}"
        if file.suffix.lower() != ".jsonl":
            text = line.strip()
            prompts.append(Prompt(where, _default_id(len(prompts), text), Request((text,), settings)))
            continue
        try:
            prompt = _read_line(line, where, len(prompts), file.parent, settings)
        except ValueError as error:
            problems.append(f"{where}: {error}")
            continue
        if prompt.id in seen:
            problems.append(f"{where}: id {prompt.id!r} is that of {seen[prompt.id]}; give every line one of its own")
        seen[prompt.id] = where
        prompts.append(prompt)
    if not prompts and not problems:
        problems.append(f"{file}: no prompts in it; write one a line")
    _raise_problems(problems)
    return prompts


def check_prompts(prompts: Sequence[Prompt], generator: Generator) -> Iterator[None]:
    """Reads every picture and text and works out every size, so that nothing fails amid the work; one yield each.

    Raises:
      PromptError: at the end, naming every prompt that cannot be drawn.
    """
    problems = []
    for prompt in prompts:
        try:
            for picture in prompt.pictures:
                read_picture(picture)
            for text in (*prompt.texts, prompt.request.settings.negative):
                generator.reader.model.tokenizer.encode(text)
            generator.size_of(prompt.request)
        except ValueError as error:
            problems.append(f"{prompt.where}: {error}")
        yield
    _raise_problems(problems)


def _read_line(line: str, where: str, number: int, folder: Path, settings: PictureSettings) -> Prompt:
    try:
        fields = parse_json(line)
    except JsonError as error:
        raise ValueError(f"{error}; write one JSON object a line") from error
    if not isinstance(fields, dict):
        raise ValueError(f"a JSON {type(fields).__name__}, not an object; write one JSON object a line")
    own = {name: value for name, value in fields.items() if name not in _FIELDS}
    try:
        changed = from_config_dict({**to_json(settings), **own}, PictureSettings, "settings")
    except ConfigError as error:
        raise ValueError(str(error).replace("\n", "; ")) from error
    context = _context(fields, folder)
    text = " ".join(part for part in context if isinstance(part, str))
    id_ = fields.get("id", _default_id(number, text))
    if not isinstance(id_, str) or not re.fullmatch(r"[\w.-]+", id_) or id_.startswith("."):
        raise ValueError(f"id is {id_!r}: expected letters, digits, '-', '_' and '.', for it names a file")
    if len(id_.encode()) > _LONGEST_ID:
        raise ValueError(f"id is of {len(id_.encode())} bytes: expected at most {_LONGEST_ID}, for it names a file")
    return Prompt(where, id_, Request(context, changed))


def _context(fields: Mapping[str, Any], folder: Path) -> tuple[ContextPart, ...]:
    if "context" in fields:
        given, both = fields["context"], [name for name in ("prompt", "images") if name in fields]
        if both:
            raise ValueError(f"context and {' and '.join(both)}: give the one or the others")
        if not isinstance(given, list) or not given:
            raise ValueError('context: expected a list of texts and {"image": path}')
        return tuple(_context_part(part, number, folder) for number, part in enumerate(given))
    prompt, images = fields.get("prompt"), fields.get("images", [])
    if not isinstance(prompt, str):
        raise ValueError(f"prompt is {'missing' if prompt is None else repr(prompt)}: expected a text")
    if not isinstance(images, list) or not all(isinstance(image, str) for image in images):
        raise ValueError(f"images is {images!r}: expected a list of paths")
    return (*(folder / image for image in images), prompt)


def _context_part(part: Any, number: int, folder: Path) -> ContextPart:
    if isinstance(part, str):
        return part
    if isinstance(part, dict) and list(part) == ["image"] and isinstance(part["image"], str):
        return folder / part["image"]
    raise ValueError(f'context[{number}] is {part!r}: expected a text or {{"image": path}}')


def _default_id(number: int, text: str) -> str:
    """Number and first words: pictures lie in the order of their prompts, and tell what they are."""
    words = re.sub(r"\W+", "-", text.lower()).strip("-")[:40].strip("-")
    return f"{number:05d}-{words}" if words else f"{number:05d}"


def _raise_problems(problems: Sequence[str]) -> None:
    if problems:
        more = len(problems) - _MOST_PROBLEMS
        rest = [f"... and {more} more"] if more > 0 else []
        raise PromptError("\n".join([*problems[:_MOST_PROBLEMS], *rest]))
