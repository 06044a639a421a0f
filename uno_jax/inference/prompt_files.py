"""Reads prompts from a text file (one per line) or a JSONL file (one object per line).

A JSONL line may have the fields of `PictureSettings`, which apply to that line only, and these:

| field | meaning |
|---|---|
| `prompt` | description of the picture, or of the changes |
| `images` | paths of the pictures to edit, relative to the file |
| `context` | instead of both: a list of texts and `{"image": path}`, in any order |
| `id` | base name of the output file, instead of the number and first words |
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
from uno_jax.process.paths import local_path

_FIELDS = ("prompt", "images", "context", "id")
_LARGEST_FILE = 2**28  # bytes
_MAX_PROBLEMS = 20  # listed in a message
# File names have at most 255 bytes, including seed, suffix and the mark of a temporary file.
_MAX_ID_BYTES = 200


class PromptError(UserError):
    """Invalid prompts. The message names each by file and line."""


class Prompt(NamedTuple):
    """A prompt and its origin."""

    where: str
    """File and line, such as `prompts.jsonl:3`, for messages."""
    id: str
    request: Request

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(part for part in self.request.context if isinstance(part, str))

    @property
    def text(self) -> str:
        """All texts joined, for captions."""
        return " ".join(self.texts)

    @property
    def pictures(self) -> tuple[Path, ...]:
        return tuple(part for part in self.request.context if isinstance(part, Path))


def prompts_of_arguments(
    prompts: Sequence[str], images: Sequence[str | Path], settings: PictureSettings
) -> list[Prompt]:
    """Returns the prompts of a command line. Each has all of the pictures in its context.

    Raises:
      PromptError: a prompt is empty.
    """
    if not all(text.strip() for text in prompts):
        raise PromptError("--prompt is empty; describe the picture, or the change")
    pictures = tuple(Path(image) for image in images)
    return [
        Prompt(f"--prompt {number}", _default_id(number, text), Request((*pictures, text), settings))
        for number, text in enumerate(prompts)
    ]


def read_prompts(file: str | Path, settings: PictureSettings) -> list[Prompt]:
    """Reads the prompts of a file: JSONL if its name ends in `.jsonl`, otherwise text. Empty lines are skipped.

    Args:
      file: path of the file.
      settings: defaults for fields that a line does not set.

    Raises:
      PromptError: the file cannot be read, is named like other JSON, has no prompts, or has invalid lines, which are
        all named.
    """
    file = Path(file)
    if file.suffix.lower() in (".json", ".ndjson"):
        raise PromptError(f"{file}: expected text or JSONL; name a file with one JSON object per line .jsonl")
    try:
        with file.open("rb") as opened:
            content = opened.read(_LARGEST_FILE + 1)
        if len(content) > _LARGEST_FILE:
            raise PromptError(f"{file}: more than {_LARGEST_FILE:,} bytes; split it into several files")
        lines = content.decode("utf-8-sig").replace("\r\n", "\n").split("\n")
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
            problems.append(f"{where}: id {prompt.id!r} is also the id of {seen[prompt.id]}; expected unique ids")
        seen[prompt.id] = where
        prompts.append(prompt)
    if not prompts and not problems:
        problems.append(f"{file}: no prompts; write one per line")
    _raise_problems(problems)
    return prompts


def check_prompts(prompts: Sequence[Prompt], generator: Generator) -> Iterator[None]:
    """Checks pictures, texts and size of every prompt before any is generated, and yields after each prompt.

    Raises:
      PromptError: after the last prompt, if any is invalid. The message names all of them.
    """
    problems = []
    for prompt in prompts:
        try:
            generator.check_texts(prompt.request)
            for picture in prompt.pictures:
                read_picture(picture)
            generator.size_of(prompt.request)
        except ValueError as error:
            problems.append(f"{prompt.where}: {error}")
        yield
    _raise_problems(problems)


def _read_line(line: str, where: str, number: int, folder: Path, settings: PictureSettings) -> Prompt:
    try:
        fields = parse_json(line)
    except JsonError as error:
        raise ValueError(f"{error}; write one JSON object per line") from error
    if not isinstance(fields, dict):
        raise ValueError(f"a JSON {type(fields).__name__}, not an object; write one JSON object per line")
    own = {name: value for name, value in fields.items() if name not in _FIELDS}
    # A size of the line takes the place of the defaults' aspect, and the other way round.
    replaced = {other: "" for name, other in (("size", "aspect"), ("aspect", "size")) if own.get(name)}
    try:
        changed = from_config_dict({**to_json(settings), **replaced, **own}, PictureSettings, "settings")
    except ConfigError as error:
        raise ValueError(str(error).replace("\n", "; ")) from error
    context = _context(fields, folder)
    text = " ".join(part for part in context if isinstance(part, str))
    id_ = fields.get("id", _default_id(number, text))
    if not isinstance(id_, str) or not re.fullmatch(r"[\w.-]+", id_) or id_.startswith("."):
        raise ValueError(f"id is {id_!r}: expected a file name of letters, digits, '-', '_' and '.'")
    if len(id_.encode()) > _MAX_ID_BYTES:
        raise ValueError(f"id has {len(id_.encode())} bytes: expected at most {_MAX_ID_BYTES}, because it names a file")
    return Prompt(where, id_, Request(context, changed))


def _context(fields: Mapping[str, Any], folder: Path) -> tuple[ContextPart, ...]:
    if "context" in fields:
        given, both = fields["context"], [name for name in ("prompt", "images") if name in fields]
        if both:
            raise ValueError(f"context and {' and '.join(both)}: use context alone, or prompt and images")
        if not isinstance(given, list) or not given:
            raise ValueError('context: expected a list of texts and {"image": path}')
        return tuple(_context_part(part, number, folder) for number, part in enumerate(given))
    prompt, images = fields.get("prompt"), fields.get("images", [])
    if not isinstance(prompt, str):
        raise ValueError(f"prompt is {'missing' if prompt is None else repr(prompt)}: expected a text")
    if not isinstance(images, list) or not all(isinstance(image, str) for image in images):
        raise ValueError(f"images is {images!r}: expected a list of paths")
    return (*(_picture(image, folder) for image in images), prompt)


def _context_part(part: Any, number: int, folder: Path) -> ContextPart:
    if isinstance(part, str):
        return part
    if isinstance(part, dict) and list(part) == ["image"] and isinstance(part["image"], str):
        return _picture(part["image"], folder)
    raise ValueError(f'context[{number}] is {part!r}: expected a text or {{"image": path}}')


def _picture(path: str, folder: Path) -> Path:
    """Returns the path of a picture, relative to `folder`; ValueError if it is a URL."""
    return folder / local_path(path)


def _default_id(number: int, text: str) -> str:
    """Returns number and first words, so that files sort in the order of the prompts."""
    words = re.sub(r"\W+", "-", text.lower()).strip("-")[:40].strip("-")
    return f"{number:05d}-{words}" if words else f"{number:05d}"


def _raise_problems(problems: Sequence[str]) -> None:
    if problems:
        more = len(problems) - _MAX_PROBLEMS
        rest = [f"... and {more} more"] if more > 0 else []
        raise PromptError("\n".join([*problems[:_MAX_PROBLEMS], *rest]))
