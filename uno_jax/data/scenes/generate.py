"""A scene and its texts, as a pure function of seed, split and number."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from uno_jax.data.scenes.description import Description, Group, directions_of, facts_of
from uno_jax.data.scenes.draws import one_of
from uno_jax.data.scenes.facts import DIRECTIONS, Fact, Kind
from uno_jax.data.scenes.held_out import held_out_in, held_out_named
from uno_jax.data.scenes.places import free_place
from uno_jax.data.scenes.scene import (
    COLOURS,
    GROUND_KINDS,
    GROUNDS,
    LARGEST_COUNT,
    MOST_LARGE,
    SHAPES,
    SIZES,
    Ground,
    Scene,
    Thing,
)
from uno_jax.data.scenes.text import write_captions, write_prompt

SPLITS = ("train", "test", "dev", "novel")
"""`train`, `test` and `dev` have no held-out combination in any picture. Each prompt of `novel` names one."""


@dataclass(frozen=True)
class Example:
    """A scene with its prompt and captions."""

    seed: int
    split: str
    """One of `SPLITS`."""
    number: int
    category: str
    """One of `CATEGORIES`."""
    scene: Scene
    prompt: str
    facts: tuple[Fact, ...]
    """What the prompt states. A picture follows it fully if all of them hold and it has `total` things."""
    captions: tuple[str, ...]
    """Three to five descriptions in other words, which name every thing and most say more than the prompt."""

    @property
    def id(self) -> str:
        """The id of its text-to-image record."""
        return f"scenes/{self.seed}/{self.split}/{self.number}"

    @property
    def total(self) -> int:
        """The number of things in the scene. The prompt names all of them, so any other thing is wrong."""
        return len(self.scene.things)

    def draws(self, use: int) -> np.random.Generator:
        """Returns the random numbers of the example, others for each use; 0 are those that made it."""
        return _draws(self.seed, self.split, self.number, use)


def make_example(seed: int, split: str, number: int) -> Example:
    """Makes an example. It depends on nothing but the arguments."""
    draws = _draws(seed, split, number)
    categories = categories_of(split)
    category = categories[number % len(categories)]
    while True:
        asked = _PROMPTS[category](draws)
        facts = facts_of(asked)
        if bool(held_out_named(facts)) != (split == "novel"):
            continue
        scene = _draw_scene(asked, draws)
        if split == "novel" or not held_out_in(scene):
            break
    prompt = write_prompt(asked, draws)
    captions = write_captions(scene, draws, prompt, asked)
    return Example(seed, split, number, category, scene, prompt, facts, captions)


def example_of(record_id: str) -> Example:
    """Makes the example of which a record is, from the record's id.

    Raises:
      ValueError: it is no id of a record of scenes.
    """
    name, seed, split, number = (*record_id.split("/"), *[""] * 4)[:4]
    if name != "scenes" or split not in SPLITS or not (seed.isdecimal() and number.isdecimal()):
        raise ValueError(f"{record_id!r} is no id of a record of scenes, expected scenes/SEED/SPLIT/NUMBER")
    return make_example(int(seed), split, int(number))


def _draws(seed: int, split: str, number: int, use: int = 0) -> np.random.Generator:
    return np.random.default_rng((seed, SPLITS.index(split), number, use))


def _single_object(draws: np.random.Generator) -> Description:
    return Description((Group(_kind(draws)),))


def _two_objects(draws: np.random.Generator) -> Description:
    return Description(tuple(map(Group, _two_kinds(draws))))


def _counting(draws: np.random.Generator) -> Description:
    return Description((Group(_kind(draws), int(draws.integers(2, LARGEST_COUNT + 1))),))


def _colours(draws: np.random.Generator) -> Description:
    """One thing of a colour; in a third of the prompts with another thing, whose colour is not said."""
    if draws.random() < 1 / 3:
        first, second = _two_kinds(draws, coloured=True)
        groups = [Group(first), Group(Kind(second.shape))]
        return Description(tuple(groups if draws.random() < 0.5 else groups[::-1]))
    return Description((Group(_kind(draws, coloured=True)),))


def _position(draws: np.random.Generator) -> Description:
    """Two things in a direction; in a third of the prompts with their colours."""
    kinds = _two_kinds(draws, coloured=draws.random() < 1 / 3)
    return Description(tuple(map(Group, kinds)), one_of(DIRECTIONS, draws))


def _attribute_binding(draws: np.random.Generator) -> Description:
    return Description(tuple(map(Group, _two_kinds(draws, coloured=True))))


_PROMPTS: Mapping[str, Callable[[np.random.Generator], Description]] = {
    "single_object": _single_object,
    "two_objects": _two_objects,
    "counting": _counting,
    "colours": _colours,
    "position": _position,
    "attribute_binding": _attribute_binding,
}
CATEGORIES = tuple(_PROMPTS)
"""The six categories of GenEval. Consecutive numbers take turns, so they have equal parts of every split."""
NOVEL_CATEGORIES = ("counting", "colours", "position", "attribute_binding")
"""Categories whose prompts can name a held-out combination."""


def categories_of(split: str) -> tuple[str, ...]:
    """Returns the categories of a split. Example n has the category n modulo their number."""
    return NOVEL_CATEGORIES if split == "novel" else CATEGORIES


def _kind(draws: np.random.Generator, coloured: bool = False) -> Kind:
    return Kind(one_of(SHAPES, draws), _colour(draws) if coloured else None)


def _two_kinds(draws: np.random.Generator, coloured: bool = False) -> tuple[Kind, Kind]:
    """Draws two kinds of different shapes; of different colours too, so that a mix-up shows."""
    while True:
        first, second = _kind(draws, coloured), _kind(draws, coloured)
        if first.shape != second.shape and not (coloured and first.colour == second.colour):
            return first, second


def _colour(draws: np.random.Generator) -> str:
    return one_of(tuple(COLOURS), draws)


def _draw_scene(asked: Description, draws: np.random.Generator) -> Scene:
    """Draws a scene with exactly the things of a description. What it leaves open is random.

    Things of one group have the same colour in half of the scenes, so that all counts are seen in one colour too.
    """
    kinds: list[Kind] = []
    for group in asked.groups:
        alike = draws.random() < 0.5
        colour = _colour(draws)
        for _ in range(group.count):
            kinds.append(Kind(group.kind.shape, group.kind.colour or (colour if alike else _colour(draws))))
    ground = Ground(one_of(tuple(GROUNDS), draws), one_of(GROUND_KINDS, draws))
    while True:
        things = _draw_things(kinds, draws)
        if things and (asked.direction is None or asked.direction in directions_of(*things)):
            return Scene(things, ground)


def _draw_things(kinds: list[Kind], draws: np.random.Generator) -> tuple[Thing, ...]:
    """Draws sizes and places. Returns () if the things do not fit."""
    things: list[Thing] = []
    for kind in kinds:
        size = one_of(tuple(SIZES), draws) if len(kinds) <= MOST_LARGE else "small"
        centre = free_place(size, things, draws)
        if centre is None:
            return ()
        assert kind.shape is not None, f"shapes are drawn before places, got {kind}"
        assert kind.colour is not None, f"colours are drawn before places, got {kind}"
        things.append(Thing(kind.shape, kind.colour, size, centre))
    return tuple(things)
