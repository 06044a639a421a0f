"""What a dataset states of its records, as questions to probe for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from uno_jax.data.record import Record
from uno_jax.data.scenes.facts import area_of
from uno_jax.data.scenes.generate import example_of
from uno_jax.data.scenes.scene import Scene

FEWEST = 5
"""Records with an answer, and records without it, that a probe needs at least."""
MOST = 24
"""Maximum number of answers per question, the most frequent ones."""


class Question(NamedTuple):
    """A question about pictures, with several possible answers."""

    name: str
    answers: tuple[str, ...]
    labels: Bool[np.ndarray, "records answers"]
    """Whether an answer holds for a record."""
    exclusive: bool
    """Whether the dataset states exactly one answer of every record, which may be too rare to be in `answers`."""


def facts_of(record: Record) -> Mapping[str, frozenset[str]]:
    """Returns what a dataset states of the target of a record: question -> answers that hold.

    Of the pictures of scenes it is what they were drawn from, of all others the words of their texts.
    """
    if record.task == "text_to_image":
        try:
            return scene_facts(example_of(record.id).scene)
        except ValueError:  # no id of a scene
            pass
    return words_of(record)


def scene_facts(scene: Scene) -> Mapping[str, frozenset[str]]:
    """Returns the shapes, colours, pairs of both, areas, and the number of the things of a scene."""
    return {
        "shape": frozenset(thing.shape for thing in scene.things),
        "colour": frozenset(thing.colour for thing in scene.things),
        "binding": frozenset(f"{thing.colour} {thing.shape}" for thing in scene.things),
        "position": frozenset(area_of(thing) for thing in scene.things),
        "count": frozenset({str(len(scene.things))}),
    }


def words_of(record: Record) -> Mapping[str, frozenset[str]]:
    """The words, of three letters or more, of the text that describes the target.

    It is the prompt; for an edit, whose prompt describes a change, the captions.
    """
    texts = record.captions if record.task == "editing" else (record.prompt,)
    return {"word": frozenset(re.findall(r"[^\W\d_]{3,}", " ".join(texts).lower()))}


def questions_of(records: Sequence[Record]) -> list[Question]:
    """Returns the questions whose answers vary enough among the records."""
    stated = [facts_of(record) for record in records]
    names = dict.fromkeys(name for each in stated for name in each)
    questions = []
    for name in names:
        held = [each.get(name, frozenset()) for each in stated]
        counts = Counter(answer for answers in held for answer in sorted(answers))
        enough = [answer for answer, count in counts.most_common() if FEWEST <= count <= len(records) - FEWEST][:MOST]
        if enough:
            labels = np.array([[answer in answers for answer in enough] for answers in held])
            questions.append(Question(name, tuple(enough), labels, all(len(answers) == 1 for answers in held)))
    return questions
