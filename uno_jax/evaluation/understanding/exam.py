"""What an exam is: how its questions are read, and how their answers are marked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from uno_jax.evaluation.benchmark import BenchmarkError, Score
from uno_jax.process.paths import local_path

SHORT = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."
"""What published scripts add to a question."""


class Question(NamedTuple):
    """A question about pictures."""

    id: str
    """Unique in the exam."""
    pictures: tuple[Path | bytes, ...]
    """Files, or encoded pictures. They come before the text."""
    text: str
    """The question with everything that the model is told; may be empty."""
    answer: str
    """The right answer; empty if it is not published, or if there are several."""
    category: str
    where: str
    """File and line, for messages."""
    published: Mapping[str, Any] = {}
    """What marking needs besides."""


class Questions(NamedTuple):
    """The published files of an exam."""

    items: list[Question]
    files: list[Path]
    """The files that were read, without pictures, in a fixed order."""


class Likelihood(NamedTuple):
    """How well a model expects a text."""

    nats: float
    """Sum of the cross-entropies of its tokens and its end token."""
    tokens: int


@dataclass(frozen=True)
class Exam:
    """An exam, which is one row of `registry.EXAMS`."""

    name: str
    """Also the name of the flag that takes its data."""
    about: str
    data: str
    """What the flag takes."""
    read: Callable[[Path], Questions]
    """Reads the published files at a path. Raises BenchmarkError."""
    mark: Callable[[Sequence[Question], Mapping[str, Any]], Score]
    """Computes the official averages from the questions and the result of each by id: a text, or a `Likelihood`."""
    max_length: int = 2
    """Maximum number of tokens of an answer, with its start token, as in BAGEL's scripts."""
    expected: bool = False
    """Whether the result is the `Likelihood` of the right answer, and no answer is written."""
    doubled: bool = False
    """Whether the first picture of a question is enlarged to twice its size, as BAGEL's script does."""
    write: Callable[[Path, Sequence[Question], Mapping[str, Any]], None] | None = None
    """Writes the answers to a folder in the format that is published or asked for."""


def find_picture(name: str, folders: Sequence[Path], where: str) -> Path:
    """Returns the file of a picture: its published path below one of the folders, or the end of this path.

    Raises:
      BenchmarkError: there is no such file, or the path is not valid.
    """
    try:
        path = Path(local_path(name))
    except ValueError as error:
        raise BenchmarkError(f"{where}: the picture is {error}") from error
    parts = path.relative_to(path.anchor).parts
    if ".." in parts:
        raise BenchmarkError(f"{where}: the picture {name!r} is outside of the folder; download the file again")
    for start in range(len(parts)):
        for folder in folders:
            if (file := folder.joinpath(*parts[start:])).is_file():
                return file
    places = " or ".join(str(folder / name) for folder in folders)
    raise BenchmarkError(f"{where}: there is no picture {places}; put the pictures of the benchmark there")


def questions_of(items: list[Question], files: list[Path], wanted: str) -> Questions:
    """Returns the questions of an exam, in which every id occurs once.

    Raises:
      BenchmarkError: there is none, or an id occurs twice. `wanted` names the files for the message.
    """
    if not items:
        raise BenchmarkError(f"{files[0] if files else 'the folder'}: no questions; expected {wanted}")
    seen: dict[str, str] = {}
    for item in items:
        if item.id in seen:
            raise BenchmarkError(
                f"{item.where}: question {item.id!r} is also at {seen[item.id]}; download the file again"
            )
        seen[item.id] = item.where
    return Questions(items, files)


def mean_score(
    items: Sequence[Question], points: Mapping[str, float], name: str, others: Mapping[str, float] = {}
) -> Score:
    """Returns the score of an exam whose published number is the percentage of right answers.

    Args:
      items: the questions.
      points: question -> its share of a point, from 0 to 1.
      name: name of the average.
      others: further averages.
    """
    groups: dict[str, list[float]] = {}
    for item in items:
        groups.setdefault(item.category, []).append(points[item.id])
    categories = {category: percent(values) for category, values in groups.items()}
    return Score({name: percent(list(points.values())), **others}, categories, dict(points), len(points))


def percent(values: Sequence[float]) -> float:
    """Returns 100 times the mean."""
    return 100.0 * sum(values) / len(values)
