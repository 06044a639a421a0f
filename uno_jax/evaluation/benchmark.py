"""What a benchmark is: how its prompts are read, where its pictures go, and the settings that were published."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from uno_jax.inference.picture_settings import LARGEST_SEED, PictureSettings
from uno_jax.process.errors import UserError, lines_of
from uno_jax.process.json_reader import JsonError, parse_json
from uno_jax.sampling.text import TextConfig

IMAGES = "images"
"""Folder of everything that an official scorer reads, below the output folder."""
SAMPLES = "samples"
"""Folder of single pictures, for benchmarks whose scorer reads grids of them."""
SOURCES = "sources"
"""Folder of the pictures to edit, for benchmarks that store them in tables."""


class BenchmarkError(UserError):
    """Raised for files of a benchmark, or results of its scorer, that are not as published."""


class Item(NamedTuple):
    """A prompt of a benchmark."""

    id: str
    """Unique in the benchmark. Seeds depend on it."""
    prompt: str
    category: str
    where: str
    """File and line, for messages."""
    published: Mapping[str, Any] = {}
    """The record as published, if the scorer needs it."""
    source: str | None = None
    """Path of the picture to edit, below the output folder."""
    more: tuple[str, ...] = ()
    """Paths of further pictures, which come after `source`."""
    questions: tuple[str, ...] = ()
    """The kind of each question that a judge is asked about the picture, if averages over kinds are official."""


class Data(NamedTuple):
    """The published files of a benchmark."""

    items: list[Item]
    files: list[Path]
    """The files that were read, in a fixed order."""


@dataclass(frozen=True)
class Preset:
    """Settings of all pictures of a benchmark."""

    about: str
    settings: PictureSettings
    thoughts: TextConfig = field(default_factory=lambda: TextConfig(max_length=1000))
    prefix: str = ""
    """Text before every prompt."""
    samples: int | None = None
    """Pictures per item, if other than `Benchmark.samples`."""


@dataclass(frozen=True)
class Score:
    """What the raw outputs of an official scorer amount to."""

    averages: Mapping[str, float]
    """Name -> value. The first is the published one; the others are averagings that are also in use."""
    categories: Mapping[str, float]
    """Category of the items -> value."""
    items: Mapping[str, float]
    """Item -> mean over its samples."""
    pictures: int
    """Number of pictures with a score."""
    failed: int = 0
    """Outputs without a score, such as failed requests to a judge. They are in no average."""
    words: Mapping[str, str] = field(default_factory=dict)
    """Item -> what the judge said of it, if the outputs state it."""


Answers = Mapping[str, str]
"""What a judge has answered about a picture, by the name of the text that asked; without answers that failed."""


class Ask(NamedTuple):
    """A question about a picture of a benchmark."""

    template: str
    """Name of its text in the file of templates."""
    pictures: tuple[Path, ...]
    captions: tuple[str, ...] = ()
    """A line before each picture; () = none."""


@dataclass(frozen=True)
class Judging:
    """How a benchmark is judged, if its judge is a language model that answers in texts."""

    asks: Callable[[Path, Path, Item, Path], list[Ask]]
    """Path of the published files, output folder, item and one of its pictures -> the questions."""
    readable: Callable[[Item, str, str], bool]
    """Whether an answer has the ratings that it was asked for: item, name of the template, answer."""
    write: Callable[[Path, Path, Mapping[Path, Item], Mapping[Path, Answers]], list[Path]]
    """Writes the raw outputs as the official scorer does, for `Benchmark.score`, and returns their files: folder for
    them, output folder, the judged pictures and their items, answers by picture. A picture that lacks an answer
    failed."""
    texts: Mapping[str, str] = field(default_factory=dict)
    """Texts for the judge by name, in words of this project, if the user gives no others."""


@dataclass(frozen=True)
class Benchmark:
    """A benchmark, which is one row of `registry.BENCHMARKS`."""

    name: str
    about: str
    published: int
    """Number of items as published."""
    samples: int
    """Pictures per item."""
    presets: Mapping[str, Preset]
    """The first is the default."""
    read: Callable[[Path], Data]
    """Reads the published files at a path. Raises BenchmarkError."""
    picture: Callable[[Item, int, str], str]
    """Item, index of the sample and name of the model -> path of the picture below the output folder."""
    scorer: str
    """How the official scorer is run, with `{images}` and `{name}` for the folder and the name of the model."""
    any_samples: bool = False
    """Whether the scorer accepts any number of pictures per item."""
    unpack: Callable[[Path, Path, Sequence[Item], str], None] | None = None
    """Writes the pictures to edit: path of the published files, output folder, items, name of the model."""
    finish: Callable[[Path, Item, str, Sequence[Path]], None] | None = None
    """Writes what the scorer reads beside the pictures of an item, once these exist: output folder, item, name of the
    model, pictures. Called again after a resume."""
    results: str = "*"
    """Names of the files that the official scorer writes to a folder, as a pattern with `*`."""
    score: Callable[[Sequence[Path], Mapping[str, Item]], Score] | None = None
    """Computes the official averages of result files, given the items by id. Raises BenchmarkError."""
    judging: Judging | None = None
    """How a language model judges the pictures."""


def one_picture(item: Item, sample: int, name: str) -> str:
    """Returns the path of the picture of a benchmark that has one for each item, in one folder."""
    return f"{IMAGES}/{item.id}.png"


def seed_of(benchmark: str, item: str, sample: int) -> int:
    """Returns the seed of a picture: the lower 31 of the first 32 bits of the SHA-256 of
    `benchmark/item/sample`."""
    digest = hashlib.sha256(f"{benchmark}/{item}/{sample}".encode()).digest()
    return int.from_bytes(digest[:4], "big") & LARGEST_SEED


def find_file(path: Path, names: Sequence[str], *, not_named: str = "") -> Path:
    """Returns a published file: `path` itself, or the first of `names` in the folder `path`.

    Args:
      path: a file or a folder.
      names: paths of the file below a folder, the published one first.
      not_named: name of a file of another benchmark, which is refused.

    Raises:
      BenchmarkError: there is no such file.
    """
    if path.is_dir():
        found = next((path / name for name in names if (path / name).is_file()), None)
        if found is None:
            raise BenchmarkError(f"{path}: there is no {names[0]}; give this file, or the folder that it is in")
        return found
    if not path.is_file():
        raise BenchmarkError(f"{path}: there is no such file; expected {names[0]} as published")
    if not_named and path.name == not_named:
        raise BenchmarkError(f"{path} belongs to another benchmark; expected {names[0]}")
    return path


def read_text(file: Path) -> str:
    """Reads a text file in UTF-8.

    Raises:
      BenchmarkError: it cannot be read, or is not UTF-8.
    """
    try:
        return file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise BenchmarkError(f"{file}: cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise BenchmarkError(f"{file}: not UTF-8 text (byte {error.start + 1}); download it again") from error


def read_json_lines(file: Path) -> list[tuple[str, dict[str, Any]]]:
    """Reads a file with one JSON object per line. Returns each with its place, `file:line`; empty lines are skipped.

    Raises:
      BenchmarkError: the file cannot be read, is empty, or lines are no JSON objects (the first 20 are named).
    """
    objects, problems = [], []
    for number, line in enumerate(read_text(file).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{file}:{number}"
        try:
            value = parse_json(line)
        except JsonError as error:
            problems.append(f"{where}: {error}")
            continue
        if isinstance(value, dict):
            objects.append((where, value))
        else:
            problems.append(f"{where}: a JSON {type(value).__name__}, not an object")
    if problems:
        raise BenchmarkError(f"{file}: expected one JSON object per line:{lines_of(problems)}")
    if not objects:
        raise BenchmarkError(f"{file}: no lines; download it again")
    return objects


def field_of(record: Mapping[str, Any], name: str, kind: type | tuple[type, ...], where: str) -> Any:
    """Returns a field of a published record.

    Raises:
      BenchmarkError: it is missing, or not of the type `kind`.
    """
    value = record.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        shown = "missing" if name not in record else repr(value)
        names = " or ".join(one.__name__ for one in (kind if isinstance(kind, tuple) else (kind,)))
        raise BenchmarkError(f"{where}: {name} is {shown}: expected {names}")
    return value


Seen = dict[tuple[str, str], str]
"""Item and sample that have a result, failed or not -> the place of it."""


def check_result(key: str, items: Container[str], seen: Seen, where: str, *, sample: str = "", shown: str = "") -> None:
    """Requires a result to be of an item of the folder, and to be the first one of it. Notes its place in `seen`.

    Args:
      key: id of the item.
      items: ids of the items of the folder.
      seen: results so far.
      where: the place of the result.
      sample: the sample, if items have several.
      shown: what the message calls the result; "" = the id of the item.

    Raises:
      BenchmarkError: it is not.
    """
    if key not in items:
        raise BenchmarkError(f"{where}: {shown or key} is no item of this folder; give its own results")
    if (key, sample) in seen:
        raise BenchmarkError(f"{where}: {shown or key} is also at {seen[key, sample]}; give each result once")
    seen[key, sample] = where


def data_of(items: list[Item], files: list[Path]) -> Data:
    """Returns the data of a benchmark, in which every id occurs once and every prompt has a text.

    Raises:
      BenchmarkError: the message names the first item.
    """
    seen: dict[str, str] = {}
    for item in items:
        if item.id in seen:
            raise BenchmarkError(f"{item.where}: item {item.id!r} is also at {seen[item.id]}; download the file again")
        if not item.prompt.strip():
            raise BenchmarkError(f"{item.where}: the prompt is empty; download the file again")
        seen[item.id] = item.where
    return Data(items, files)
