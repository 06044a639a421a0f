"""Edits of scenes in rounds, each of which starts from the result of the one before."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from uno_jax.data.scenes.draws import one_of
from uno_jax.data.scenes.facts import Fact, Kind, Location, Number, area_of
from uno_jax.data.scenes.generate import Example, example_of
from uno_jax.data.scenes.held_out import held_out_in
from uno_jax.data.scenes.naming import any_of_kind, name_of
from uno_jax.data.scenes.places import free_place, nearest_place
from uno_jax.data.scenes.scene import COLOURS, LARGEST_COUNT, MOST_LARGE, SHAPES, SIZES, Scene, Thing
from uno_jax.data.scenes.text import write_captions
from uno_jax.data.scenes.words import AREA_WORDS, COLOUR_WORDS

ROUNDS = 3
"""Edits in a row for one scene."""

_TRIES = 8  # of one kind of edit, so that kinds that often fail are about as common


@dataclass(frozen=True)
class Edit:
    """One round of editing."""

    kind: str
    """A key of `_EDITS`: recolour, move, add, remove, replace or resize."""
    instruction: str
    source: Scene
    target: Scene
    facts: tuple[Fact, ...]
    """What the instruction asks of the result. A picture follows it fully if all of them hold and it has `total`
    things; it is an exact edit if the things in `kept` are also as they were."""
    kept: tuple[Thing, ...]
    """The things that stay as they were: shape, colour, size and place."""
    captions: tuple[str, ...]
    """Three to five descriptions of the result."""

    @property
    def total(self) -> int:
        """The number of things in the result."""
        return len(self.target.things)


def edits_of(example: Example) -> tuple[Edit, ...]:
    """Returns `ROUNDS` edits of an example's scene. Outside of `novel` no result has a held-out combination."""
    draws = example.draws(use=2)
    edits: list[Edit] = []
    scene = example.scene
    while len(edits) < ROUNDS:
        kind = one_of(tuple(_EDITS), draws)
        for _ in range(_TRIES):
            change = _EDITS[kind](scene, draws)
            if change is None:
                continue
            target = Scene(change.things, scene.ground)
            if _fits(target) and (example.split == "novel" or not held_out_in(target)):
                kept = tuple(thing for thing in scene.things if thing in change.things)
                captions = write_captions(target, draws, change.instruction)
                edits.append(Edit(kind, change.instruction, scene, target, _facts(change), kept, captions))
                scene = target
                break
    return tuple(edits)


def edit_of(record_id: str) -> Edit:
    """Returns the edit of an editing record, from the record's id.

    Raises:
      ValueError: it is no id of an editing record of scenes.
    """
    name, _, number = record_id.partition("/edit-")
    if number not in map(str, range(1, ROUNDS + 1)):
        raise ValueError(f"{record_id!r} is no id of an edit, expected scenes/SEED/SPLIT/NUMBER/edit-1 to -{ROUNDS}")
    return edits_of(example_of(name))[int(number) - 1]


def _fits(scene: Scene) -> bool:
    """Whether a scene has one of the numbers and sizes of things that examples have."""
    count = len(scene.things)
    large = any(thing.size == "large" for thing in scene.things)
    return 1 <= count <= LARGEST_COUNT and (count <= MOST_LARGE or not large)


@dataclass(frozen=True)
class _Change:
    """What an edit does to the things of a scene."""

    instruction: str
    things: tuple[Thing, ...]
    """The things of the result."""
    kinds: tuple[Kind, ...]
    """Kinds whose number in the result the instruction determines."""
    placed: tuple[Kind, str] | None = None
    """A kind of which one thing is in an area of the result."""


def _facts(change: _Change) -> tuple[Fact, ...]:
    numbers = [Number(kind, sum(kind.fits(thing) for thing in change.things)) for kind in dict.fromkeys(change.kinds)]
    if change.placed is None:
        return tuple(numbers)
    kind, area = change.placed
    count = sum(kind.fits(thing) and area_of(thing) == area for thing in change.things)
    return (*numbers, Location(kind, area, count))


def _recolour(scene: Scene, draws: np.random.Generator) -> _Change | None:
    thing = one_of(scene.things, draws)
    changed = replace(thing, colour=_another(tuple(COLOURS), thing.colour, draws))
    wordings = ("make {name} {colour}", "paint {name} {colour}", "change the colour of {name} to {colour}")
    return _exchange(scene, thing, changed, one_of(wordings, draws), colour=COLOUR_WORDS[changed.colour][0])


def _move(scene: Scene, draws: np.random.Generator) -> _Change | None:
    thing = one_of(scene.things, draws)
    centre = free_place(thing.size, _others(scene, thing), draws)
    if centre is None:
        return None
    changed = replace(thing, centre=centre)
    area = area_of(changed)
    if area == area_of(thing):
        return None
    wordings = ("move {name} to the {area}", "put {name} {where}", "{name} should be {where}")
    return _exchange(scene, thing, changed, one_of(wordings, draws), area=area, where=AREA_WORDS[area][0])


def _resize(scene: Scene, draws: np.random.Generator) -> _Change | None:
    thing = one_of(scene.things, draws)
    size = _another(tuple(SIZES), thing.size, draws)
    centre = nearest_place(size, thing.centre, _others(scene, thing))
    if centre is None:
        return None
    wordings = {
        "large": ("make {name} larger", "make {name} bigger", "enlarge {name}"),
        "small": ("make {name} smaller", "shrink {name}"),
    }
    return _exchange(scene, thing, replace(thing, size=size, centre=centre), one_of(wordings[size], draws))


def _replace(scene: Scene, draws: np.random.Generator) -> _Change | None:
    """Puts another shape in the place of a thing; in half of the edits also in another colour."""
    thing = one_of(scene.things, draws)
    changed = replace(thing, shape=_another(SHAPES, thing.shape, draws))
    if draws.random() < 0.5:
        changed = replace(changed, colour=_another(tuple(COLOURS), thing.colour, draws))
    new = any_of_kind(changed.shape, "" if changed.colour == thing.colour else changed.colour)
    wordings = ("replace {name} with {new}", "turn {name} into {new}")
    return _exchange(scene, thing, changed, one_of(wordings, draws), new=new)


def _exchange(scene: Scene, thing: Thing, changed: Thing, wording: str, **words: str) -> _Change | None:
    """Returns the change of one thing into another, or None if the thing has no name of its own."""
    name = name_of(thing, scene)
    if name is None:
        return None
    things = tuple(changed if other == thing else other for other in scene.things)
    before, after = (Kind(one.shape, one.colour, one.size) for one in (thing, changed))
    instruction = wording.format(name=name, **words)
    return _Change(instruction, things, (after, before), (after, area_of(changed)))


def _add(scene: Scene, draws: np.random.Generator) -> _Change | None:
    """Adds a thing; in half of the edits each, the instruction says its size and its area."""
    shape, colour = one_of(SHAPES, draws), one_of(tuple(COLOURS), draws)
    size = one_of(tuple(SIZES), draws) if len(scene.things) < MOST_LARGE else "small"
    centre = free_place(size, scene.things, draws)
    if centre is None:
        return None
    added = Thing(shape, colour, size, centre)
    area = area_of(added)
    say_size, say_area = draws.random(2) < 0.5
    wordings = ("add {new}", "draw {new}", "put {new}") if say_area else ("add {new}", "draw {new}")
    new = any_of_kind(shape, colour, size if say_size else "", area if say_area else "")
    kind = Kind(shape, colour, size if say_size else None)
    instruction = one_of(wordings, draws).format(new=new)
    return _Change(instruction, (*scene.things, added), (kind,), (kind, area) if say_area else None)


def _remove(scene: Scene, draws: np.random.Generator) -> _Change | None:
    thing = one_of(scene.things, draws)
    name = name_of(thing, scene)
    if name is None:
        return None
    instruction = one_of(("remove {name}", "take {name} away", "delete {name}"), draws).format(name=name)
    return _Change(instruction, _others(scene, thing), (Kind(thing.shape, thing.colour, thing.size),))


_EDITS: Mapping[str, Callable[[Scene, np.random.Generator], _Change | None]] = {
    "recolour": _recolour,
    "move": _move,
    "add": _add,
    "remove": _remove,
    "replace": _replace,
    "resize": _resize,
}


def _others(scene: Scene, thing: Thing) -> tuple[Thing, ...]:
    return tuple(other for other in scene.things if other != thing)


def _another(options: Sequence[str], than: str, draws: np.random.Generator) -> str:
    return one_of([option for option in options if option != than], draws)
