"""Looks inside one checkpoint: everything that is measured, before it is drawn and reported."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from uno_jax.data.plans import Pixels, Plan
from uno_jax.data.record import Record
from uno_jax.inside.captions import noised_pictures, write_captions
from uno_jax.inside.components import Components, principal_components
from uno_jax.inside.gradients import Gradients, measure_gradients
from uno_jax.inside.probes import Score, probe
from uno_jax.inside.questions import Question
from uno_jax.inside.records import evenly_spaced
from uno_jax.inside.states import States, states_at
from uno_jax.inside.subject import Subject, encoded_batches, grid_of, noised_only, plans_of, target_of
from uno_jax.objectives.config import ObjectiveConfig

Part = Literal["pca", "probes", "gradients", "captions"]
PARTS: tuple[Part, ...] = ("pca", "probes", "gradients", "captions")

_OF_STATES = {"pca", "probes"}

Place = tuple[int, float]
"""A state (0: input of the first layer, n: output of the n-th) and a time."""


@dataclass(frozen=True)
class Settings:
    """What to look at."""

    parts: tuple[Part, ...]
    layers: tuple[int, ...]
    """States of each token: 0 is the input of the first layer, n the output of the n-th."""
    times: tuple[float, ...]
    context: bool
    """Whether the noised picture sees its prompt and its source pictures."""
    pictures: int
    """Number of pictures on sheets."""
    tokens: int
    """Maximum number of tokens per picture that components and probes are fitted on."""
    batch: int
    """Pictures per forward pass."""
    caption_tokens: int
    """Maximum length of a written caption."""


class Map(NamedTuple):
    """Principal components of the states of a place."""

    components: Components
    sample: Float[np.ndarray, "tokens components"]
    """Scores of the tokens that the components were fitted on."""
    shown: list[Float[np.ndarray, "_rows _columns components"]]
    """Scores of the tokens of the shown pictures."""


class Probed(NamedTuple):
    """Scores of the questions at a place."""

    pooled: list[Score]
    """From the mean over the tokens of a picture."""
    tokens: list[Score]
    """From single tokens; the best token of a picture counts."""


class Findings(NamedTuple):
    """What was measured of a checkpoint."""

    targets: list[Pixels]
    """The clean target of each shown picture."""
    maps: dict[Place, Map]
    probes: dict[Place, Probed]
    gradients: Gradients | None
    noised: list[list[Pixels]]
    """The shown pictures at each time, noised and decoded; empty without sheets of them."""
    captions: list[list[str]]
    """Captions of the noised pictures at each time; empty if they are not written."""


def look(
    subject: Subject,
    records: Sequence[Record],
    questions: Sequence[Question],
    objective: ObjectiveConfig,
    settings: Settings,
    on_step: Callable[[str], None] = lambda what: None,
) -> Findings:
    """Measures the parts of the settings.

    Args:
      subject: the checkpoint.
      records: the pictures, at least one.
      questions: what to probe for.
      objective: the losses whose gradients are measured.
      settings: what to look at.
      on_step: called with a description before each step (`step_count`).
    """
    plans, rows = plans_of(subject, records), subject.reader.row_count(settings.batch)
    bare = [noised_only(plan, context=settings.context) for plan in plans]
    numbers = evenly_spaced(len(records), settings.pictures)
    shown = [bare[number] for number in numbers]
    maps, probes = _states(subject, bare, numbers, questions, settings, rows, on_step)
    gradients, noised, captions = None, [], []
    if {"pca", "captions"} & set(settings.parts):
        noised = [noised_pictures(subject, shown, numbers, time) for time in settings.times]
    if "gradients" in settings.parts:
        on_step("gradients")
        gradients = measure_gradients(subject, encoded_batches(subject, plans, rows), objective)
    if "captions" in settings.parts:
        on_step("captions")
        captions = write_captions(subject, shown, numbers, settings.times, settings.caption_tokens)
    return Findings(
        targets=[target_of(plan).pixels for plan in shown],
        maps=maps,
        probes=probes,
        gradients=gradients,
        noised=noised,
        captions=captions,
    )


def step_count(settings: Settings) -> int:
    """Returns the number of steps of `look`."""
    parts = set(settings.parts)
    return len(settings.times) * bool(parts & _OF_STATES) + ("gradients" in parts) + ("captions" in parts)


def _states(
    subject: Subject,
    plans: Sequence[Plan],
    numbers: Sequence[int],
    questions: Sequence[Question],
    settings: Settings,
    rows: int,
    on_step: Callable[[str], None],
) -> tuple[dict[Place, Map], dict[Place, Probed]]:
    """Computes what is measured on states, one time after the other, because the states of all would not fit."""
    maps: dict[Place, Map] = {}
    probes: dict[Place, Probed] = {}
    if not set(settings.parts) & _OF_STATES:
        return maps, probes
    grids = [grid_of(plan, subject) for plan in plans]
    count = min(settings.tokens, *(height * width for height, width in grids))
    batches = encoded_batches(subject, plans, rows)
    shown = [plans[number] for number in numbers]
    shown_grids = [grids[number] for number in numbers]
    shown_batches = encoded_batches(subject, shown, rows, numbers)
    for time in settings.times:
        on_step(f"states at t = {time:g}")
        states = states_at(subject, batches, len(plans), time, settings.layers, count)
        if "pca" in settings.parts:
            every = max(height * width for height, width in shown_grids)
            of_shown = states_at(subject, shown_batches, len(shown), time, settings.layers, every)
            for i, layer in enumerate(settings.layers):
                maps[layer, time] = _map(states, of_shown, i, shown_grids)
        if "probes" in settings.parts:
            for i, layer in enumerate(settings.layers):
                pooled, tokens = states.pooled[i][:, None], states.tokens[i]
                probes[layer, time] = Probed(probe(pooled, questions), probe(tokens, questions))
    return maps, probes


def _map(states: States, shown: States, layer: int, grids: Sequence[tuple[int, int]]) -> Map:
    tokens = states.tokens[layer].reshape(-1, states.tokens.shape[-1])
    components = principal_components(tokens)
    scores = [components.scores(picture) for picture in shown.tokens[layer]]
    # A picture with fewer tokens than the largest repeats its last one (`token_places`).
    whole = [
        each[: height * width].reshape(height, width, -1) for each, (height, width) in zip(scores, grids, strict=True)
    ]
    return Map(components, components.scores(tokens), whole)
