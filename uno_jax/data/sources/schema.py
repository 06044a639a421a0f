"""The record schema that all sources of the user's own data share, and its checks. See `docs/data.md`.

A source reads its format into fields, a dictionary with the names in `FIELDS`. `check_record` checks them and makes
records of them: one, or one for each round of an edit or each turn of a conversation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from uno_jax.data.decoding import LARGEST_PICTURE, PictureError
from uno_jax.data.record import Record
from uno_jax.data.sources.source import Option
from uno_jax.process.json_reader import half_pair

TASKS = ("text_to_image", "editing", "understanding")
FIELDS = ("id", "task", "image", "prompt", "captions", "sources", "answer", "images", "instructions", "turns")
IMAGES = Option("images", str, None, "base folder of the picture paths; a path or gs://", required=True)
MAX_PICTURE_PIXELS = Option(
    "max_picture_pixels", int, LARGEST_PICTURE, "maximum number of pixels of a picture", minimum=1
)
MAX_SIDE = Option("max_side", int, 0, "scale pictures down to this longest side, in pixels; 0 = as they are", minimum=0)
MIN_SIDE = Option("min_side", int, 0, "leave out pictures with a shorter side than this, in pixels", minimum=0)
MAX_ASPECT = Option(
    "max_aspect",
    float,
    0.0,
    "leave out pictures whose sides have a larger ratio than this, such as 3; 0 = any",
    minimum=0,
)
PICTURE_OPTIONS = (MAX_PICTURE_PIXELS, MAX_SIDE, MIN_SIDE, MAX_ASPECT)
"""Options of all sources of the user's own pictures, which their records depend on."""

_LONGEST_TEXT = 2**20  # characters
_LONGEST_ID = 1024  # characters
_MOST_PICTURES = 64
_MOST_TEXTS = 1024

Problem = tuple[str, str, str] | tuple[str, str, str, str]
"""Field, problem, remedy, and optionally the cause under which it is counted."""

Load = Callable[[Any], bytes]
"""Returns the picture of a field as it is stored. Raises PictureError."""


@dataclass(frozen=True)
class Checked:
    """Fields after their check: records if there are no problems, else problems and no records."""

    records: tuple[Record, ...]
    problems: tuple[Problem, ...]


def check_record(fields: Mapping[str, Any], load: Load) -> Checked:
    """Checks the fields of a record, decodes its pictures, and makes records of them.

    Args:
      fields: values by field. None means that the field is absent. Pictures are of any type that `load` reads.
      load: reads the picture of a field.
    """
    present = {field: value for field, value in fields.items() if value is not None}
    if (half := half_pair(present)) is not None:
        return _rejected((half, "half of a surrogate pair, which is no valid Unicode", "Write the whole character"))
    problems: list[Problem] = [
        (field, "no such field", f"Use the fields {', '.join(FIELDS)}") for field in present if field not in FIELDS
    ]
    task = present.get("task", _implied_task(present))
    if task not in TASKS:
        return _rejected(*problems, ("task", f"unknown task {task!r}", f"Use one of {', '.join(TASKS)}"))
    _first_caption_as_prompt(present, task)
    if id_problems := list(_id_problems(present)):
        problems += id_problems
        present["id"] = ""  # whatever else is wrong is found, too
    if "images" in present or "instructions" in present:
        make = _rounds
    elif "turns" in present:
        make = _turns
    else:
        make = _single
    records, found = make(present, task, load)
    problems += found
    return _rejected(*problems) if problems else Checked(records, ())


def _rejected(*problems: Problem) -> Checked:
    return Checked((), problems)


def _implied_task(present: Mapping[str, Any]) -> str:
    if "images" in present or "instructions" in present:
        return "editing"
    return "understanding" if "turns" in present else TASKS[0]


def _first_caption_as_prompt(present: dict[str, Any], task: str) -> None:
    """Moves the first caption of a record without a prompt to the prompt, as in BAGEL's layout."""
    captions = present.get("captions")
    rounds = {"images", "instructions", "turns"} & present.keys()
    if task == "text_to_image" and not rounds and "prompt" not in present and isinstance(captions, list) and captions:
        present["prompt"], present["captions"] = captions[0], captions[1:]


def _id_problems(present: Mapping[str, Any]) -> Iterator[Problem]:
    id_ = present.get("id", "")
    if not isinstance(id_, str):
        yield "id", f"a {type(id_).__name__}, not text", "Write a string in double quotes"
    elif not id_.strip():
        yield "id", "missing or empty", "Every record needs this field"
    elif len(id_) > _LONGEST_ID:
        yield "id", f"{len(id_):,} characters", f"Use at most {_LONGEST_ID:,}"
    elif ".." in re.split(r"[/\\]", id_) or not id_.isprintable():
        yield "id", f"{id_!r} has a part '..' or an invisible character", "Use another id"


# One record


def _single(present: Mapping[str, Any], task: str, load: Load) -> tuple[tuple[Record, ...], list[Problem]]:
    problems = [*_text_problems(present, task)]
    pictures, found = _pictures(present, task, load)
    problems += found
    if problems:
        return (), problems
    record = Record(
        id=present["id"],
        task=task,
        image=pictures["image"],
        prompt=present["prompt"],
        captions=tuple(present.get("captions", ())),
        sources=tuple(pictures[f"sources[{index}]"] for index in range(len(present.get("sources", ())))),
        answer=present.get("answer", ""),
    )
    return (record,), []


def _text_problems(present: Mapping[str, Any], task: str) -> Iterator[Problem]:
    required = {"prompt": task != "understanding", "answer": task == "understanding"}
    for field, must in required.items():
        yield from _one_text(field, present.get(field, ""), f"Every {task} record needs this field" if must else "")
    if "prompt" not in present and task == "understanding":
        yield "prompt", "missing", 'Write the question, or "" if there is none'
    if task != "understanding" and present.get("answer"):
        yield "answer", f"{task} records have no answer", "Remove it, or set the task to understanding"
    if task == "understanding" and present.get("captions"):
        yield "captions", "understanding records have no captions", "Remove them. Only the answer is trained"
    yield from _caption_problems("captions", present.get("captions", []), present.get("prompt"))


def _one_text(field: str, value: Any, required: str = "") -> Iterator[Problem]:
    """Checks a text, which may be empty unless there is a sentence `required` that says that it must not."""
    if not isinstance(value, str):
        yield field, f"a {type(value).__name__}, not text", "Write a string in double quotes"
    elif len(value) > _LONGEST_TEXT:
        yield field, f"{len(value):,} characters", f"Write at most {_LONGEST_TEXT:,}"
    elif required and not value.strip():
        yield field, "missing or empty", required


def _caption_problems(field: str, captions: Any, prompt: Any) -> Iterator[Problem]:
    if not isinstance(captions, list):
        yield field, f"a {type(captions).__name__}, not a list", "Write a list of strings"
        return
    if len(captions) > _MOST_TEXTS:
        yield field, f"{len(captions):,} texts", f"Give at most {_MOST_TEXTS:,}"
        return
    for index, caption in enumerate(captions):
        name = f"{field}[{index}]"
        if not isinstance(caption, str) or not caption.strip():
            yield name, "empty, or not text", "Write a text, or remove it"
        elif len(caption) > _LONGEST_TEXT:
            yield from _one_text(name, caption)
        elif isinstance(prompt, str) and _same(caption, prompt):
            yield name, "the same as the prompt", "Rephrase it, or remove it"


def _pictures(present: Mapping[str, Any], task: str, load: Load) -> tuple[dict[str, bytes], list[Problem]]:
    """Returns the pictures by field, and their problems."""
    sources = present.get("sources", [])
    problems: list[Problem] = []
    if not isinstance(sources, list):
        problems.append(("sources", f"a {type(sources).__name__}, not a list", "Write a list of pictures"))
        sources = []
    elif len(sources) > _MOST_PICTURES:
        problems.append(("sources", f"{len(sources):,} pictures", f"Give at most {_MOST_PICTURES}"))
        sources = []
    elif task == "editing" and not sources:
        problems.append(("sources", "missing or empty", "An editing record needs the pictures to edit"))
    elif task != "editing" and sources:
        problems.append(("sources", f"{task} records have no sources", "Remove them, or set the task to editing"))
    values = {"image": present.get("image", ""), **{f"sources[{i}]": source for i, source in enumerate(sources)}}
    pictures, found = _load_all(values, load)
    problems += found
    problems += [
        (field, "the same picture as the target", "Give the picture before the edit")
        for field, content in pictures.items()
        if field != "image" and content == pictures.get("image")
    ]
    return pictures, problems


def _load_all(values: Mapping[str, Any], load: Load) -> tuple[dict[str, bytes], list[Problem]]:
    pictures: dict[str, bytes] = {}
    problems: list[Problem] = []
    for field, value in values.items():
        try:
            pictures[field] = load(value)
        except PictureError as error:
            problems.append((field, error.problem, error.remedy, error.cause))
    return pictures, problems


def _same(one: str, other: str) -> bool:
    return " ".join(one.split()).casefold() == " ".join(other.split()).casefold()


# Edits of several rounds


def _rounds(present: Mapping[str, Any], task: str, load: Load) -> tuple[tuple[Record, ...], list[Problem]]:
    """Makes a record of each round and wording: the picture before, an instruction, the picture after."""
    images, instructions = present.get("images"), present.get("instructions")
    problems = [*_foreign(present, ("images", "instructions", "captions"), "records with rounds")]
    if task != "editing":
        problems.append(("task", f"{task}, but the record has rounds", "Set the task to editing"))
    if not isinstance(images, list) or not 2 <= len(images) <= _MOST_PICTURES:
        found = f"{len(images):,} pictures" if isinstance(images, list) else "no list of pictures"
        return (), [*problems, ("images", found, f"Give 2 to {_MOST_PICTURES} pictures, one more than rounds")]
    if not isinstance(instructions, list) or len(instructions) != len(images) - 1:
        found = f"{len(instructions):,} rounds" if isinstance(instructions, list) else "no list of rounds"
        remedy = f"Give {len(images) - 1:,} for {len(images):,} pictures"
        return (), [*problems, ("instructions", found, remedy)]
    captions = present.get("captions", [[] for _ in instructions])
    if not isinstance(captions, list) or len(captions) != len(instructions):
        remedy = f"Give {len(instructions):,} lists, one for each round"
        return (), [*problems, ("captions", "not a list for each round", remedy)]
    wordings = [[texts] if isinstance(texts, str) else texts for texts in instructions]
    problems += _wording_problems(wordings, captions)
    pictures, found_ = _load_all({f"images[{i}]": image for i, image in enumerate(images)}, load)
    problems += found_
    contents = list(pictures.values())
    if not found_:
        problems += [
            (f"images[{i + 1}]", "the same picture as before the round", "Leave the round out")
            for i in range(len(contents) - 1)
            if contents[i] == contents[i + 1]
        ]
    if problems:
        return (), problems
    records = []
    for number, (texts, own) in enumerate(zip(wordings, captions, strict=True), 1):
        for which, text in enumerate(texts, 1):
            id_ = present["id"]
            id_ += f"/round-{number}" if len(wordings) > 1 else ""
            id_ += f"/wording-{which}" if len(texts) > 1 else ""
            records.append(Record(id_, task, contents[number], text, tuple(own), (contents[number - 1],)))
    return tuple(records), []


def _wording_problems(wordings: Sequence[Any], captions: Sequence[Any]) -> Iterator[Problem]:
    for number, (texts, own) in enumerate(zip(wordings, captions, strict=True)):
        field = f"instructions[{number}]"
        if not isinstance(texts, list) or not 1 <= len(texts) <= _MOST_TEXTS:
            yield field, "not a list of texts, or an empty or very long one", f"Give 1 to {_MOST_TEXTS:,} instructions"
            continue
        for which, text in enumerate(texts):
            yield from _one_text(f"{field}[{which}]", text, "Write the instruction, or remove it")
            yield from _caption_problems(f"captions[{number}]", own, text)


def _foreign(present: Mapping[str, Any], own: Sequence[str], kind: str) -> Iterator[Problem]:
    for field, value in present.items():
        if value and field in FIELDS and field not in ("id", "task", *own):
            yield field, f"{kind} have no such field", f"Remove it, or {' and '.join(own[:2])}"


# Conversations


def _turns(present: Mapping[str, Any], task: str, load: Load) -> tuple[tuple[Record, ...], list[Problem]]:
    """Makes a record of each answer. Its question is preceded by the earlier turns, one text a line."""
    turns = present["turns"]
    problems = [*_foreign(present, ("turns", "image"), "records with turns")]
    if task != "understanding":
        problems.append(("task", f"{task}, but the record has turns", "Set the task to understanding"))
    if not isinstance(turns, list) or not 1 <= len(turns) <= _MOST_TEXTS:
        return (), [*problems, ("turns", "not a list, or an empty or very long one", "Give 1 or more pairs of texts")]
    for number, turn in enumerate(turns):
        if not isinstance(turn, (list, tuple)) or len(turn) != 2:
            problems.append((f"turns[{number}]", "not a pair", "Give a question and its answer"))
            continue
        problems += _one_text(f"turns[{number}][0]", turn[0])
        problems += _one_text(f"turns[{number}][1]", turn[1], "Write the answer, or remove the turn")
    pictures, found = _load_all({"image": present.get("image", "")}, load)
    problems += found
    if problems:
        return (), problems
    records, earlier = [], ""
    for number, (question, answer) in enumerate(turns, 1):
        if len(earlier) + len(question) > _LONGEST_TEXT:
            return (), [(f"turns[{number - 1}]", "a conversation of too many characters", "Shorten it")]
        records.append(Record(present["id"], task, pictures["image"], earlier + question, answer=answer))
        earlier += f"{question}\n{answer}\n"
    if len(records) > 1:
        records = [replace(record, id=f"{record.id}/turn-{number}") for number, record in enumerate(records, 1)]
    return tuple(records), []
