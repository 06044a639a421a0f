"""Questions about scenes that have one right answer, in a few words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from uno_jax.data.scenes.description import directions_of
from uno_jax.data.scenes.draws import one_of
from uno_jax.data.scenes.facts import AREAS, OPPOSITE, Kind, Relation, area_of
from uno_jax.data.scenes.generate import Example
from uno_jax.data.scenes.held_out import PAIRS, held_out_named
from uno_jax.data.scenes.naming import any_of_kind, name_of
from uno_jax.data.scenes.scene import COLOURS, MOST_LARGE, SHAPES, Scene
from uno_jax.data.scenes.words import AREA_WORDS, COLOUR_WORDS, DIRECTION_WORDS, NUMBER_WORDS, SHAPE_WORDS

_NUMBERS = {0: "none", 1: "one", **NUMBER_WORDS}


@dataclass(frozen=True)
class Question:
    """A question about a picture."""

    kind: str
    """What it asks for: `list`, or a key of `_QUESTIONS`."""
    text: str
    answer: str


def questions_of(example: Example) -> tuple[Question, ...]:
    """Returns the questions about an example in random order, those of rare kinds as likely to come first."""
    draws = example.draws(use=1)
    waiting: list[list[Question]] = []
    for kind, ask in _QUESTIONS.items():
        asked = [Question(kind, *pair) for pair in ask(example.scene, draws)]
        waiting.append([asked[i] for i in draws.permutation(len(asked))])
    found: list[Question] = []
    while waiting := [asked for asked in waiting if asked]:
        found += [waiting[i].pop() for i in draws.permutation(len(waiting))]
    return tuple(found)


def _colour(scene: Scene, draws: np.random.Generator) -> Iterator[tuple[str, str]]:
    for thing in scene.things:
        if name := name_of(thing, scene, without="colour"):
            yield f"what colour is {name}?", COLOUR_WORDS[thing.colour][0]
    for shape in dict.fromkeys(thing.shape for thing in scene.things):
        colours = [thing.colour for thing in scene.things if thing.shape == shape]
        if len(colours) > 1 and len(set(colours)) == 1:
            yield f"what colour are the {SHAPE_WORDS[shape][0].many}?", COLOUR_WORDS[colours[0]][0]


def _count(scene: Scene, draws: np.random.Generator) -> Iterator[tuple[str, str]]:
    """Asks for a shape and for a colour that may be absent, so that `one` is not nearly always right."""
    yield "how many things are there?", _NUMBERS[len(scene.things)]
    shapes, colours = [thing.shape for thing in scene.things], [thing.colour for thing in scene.things]
    shape = one_of(one_of((shapes, SHAPES), draws), draws)
    yield f"how many {SHAPE_WORDS[shape][0].many} are there?", _NUMBERS[shapes.count(shape)]
    colour = one_of(one_of((colours, tuple(COLOURS)), draws), draws)
    yield f"how many {COLOUR_WORDS[colour][0]} things are there?", _NUMBERS[colours.count(colour)]


def _place(scene: Scene, draws: np.random.Generator) -> Iterator[tuple[str, str]]:
    for thing in scene.things:
        if name := name_of(thing, scene, without="area"):
            yield f"where is {name}?", AREA_WORDS[area_of(thing)][0]


def _size(scene: Scene, draws: np.random.Generator) -> Iterator[tuple[str, str]]:
    for thing in scene.things:
        if name := name_of(thing, scene, without="size"):
            yield f"is {name} large or small?", thing.size


def _thing(scene: Scene, draws: np.random.Generator) -> Iterator[tuple[str, str]]:
    colours, areas = [thing.colour for thing in scene.things], [area_of(thing) for thing in scene.things]
    for thing in scene.things:
        if colours.count(thing.colour) == 1:
            yield f"what is {COLOUR_WORDS[thing.colour][0]}?", any_of_kind(thing.shape)
        if areas.count(area_of(thing)) == 1:
            yield f"what is {AREA_WORDS[area_of(thing)][0]}?", any_of_kind(thing.shape, thing.colour)


def _relation(scene: Scene, draws: np.random.Generator) -> Iterator[tuple[str, str]]:
    """Asks only about pairs of things, so that one thing is the answer."""
    if len(scene.things) == 2:
        for first, second in (scene.things, scene.things[::-1]):
            name = name_of(second, scene)
            for direction in directions_of(first, second):
                if name:
                    yield f"what is {DIRECTION_WORDS[direction][0]} {name}?", any_of_kind(first.shape, first.colour)


def _yes_or_no(scene: Scene, draws: np.random.Generator) -> Iterator[tuple[str, str]]:
    """Asks what is so and what is not, each half of the time. What is not is no held-out combination either."""
    thing = one_of(scene.things, draws)
    if name := name_of(thing, scene, without="colour"):
        held_out = {fact.kind.colour for fact in PAIRS if fact.kind.shape == thing.shape}
        others = sorted(set(COLOURS) - held_out - {thing.colour})
        colour = thing.colour if draws.random() < 0.5 else one_of(others, draws)
        yield f"is {name} {COLOUR_WORDS[colour][0]}?", _yes(colour == thing.colour)
    absent = sorted(set(SHAPES) - {other.shape for other in scene.things})
    shape = thing.shape if draws.random() < 0.5 else one_of(absent, draws)
    yield f"is there {any_of_kind(shape)}?", _yes(shape == thing.shape)
    if len(scene.things) == 2 and (directions := directions_of(*scene.things)):
        first, second = (name_of(other, scene) for other in scene.things)
        direction = one_of(directions, draws)
        asked = direction if draws.random() < 0.5 else OPPOSITE[direction]
        kinds = [Kind(other.shape) for other in scene.things]
        right = asked == direction
        if first and second and (right or not held_out_named((Relation(kinds[0], asked, kinds[1]),))):
            yield f"is {first} {DIRECTION_WORDS[asked][0]} {second}?", _yes(right)


def _yes(so: bool) -> str:
    return "yes" if so else "no"


def _ground(scene: Scene, draws: np.random.Generator) -> Iterator[tuple[str, str]]:
    yield "what is the ground like?", scene.ground.name


LIST = "what is where?"
"""The question that asks for everything. One answer is right: it teaches more than a caption, which says some facts."""


def list_of(scene: Scene) -> Question:
    """Asks for all things, from the top left to the bottom right, such as `large red star top left, ...`.

    The size is left out where all things are small, so that the answer is not longer than a caption.
    """
    order = [name for row in AREAS for name in row]
    things = sorted(scene.things, key=lambda thing: (order.index(area_of(thing)), thing.centre))
    with_size = len(things) <= MOST_LARGE
    phrases = [
        f"{thing.size + ' ' if with_size else ''}{thing.colour} {thing.shape} {area_of(thing)}" for thing in things
    ]
    return Question("list", LIST, ", ".join(phrases))


_QUESTIONS: Mapping[str, Callable[[Scene, np.random.Generator], Iterator[tuple[str, str]]]] = {
    "colour": _colour,
    "count": _count,
    "place": _place,
    "size": _size,
    "thing": _thing,
    "relation": _relation,
    "yes or no": _yes_or_no,
    "ground": _ground,
}
