"""Sheets of pictures of what was found in one or several checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from uno_jax.inside.components import aligning_rotation, colours
from uno_jax.inside.look import Findings, Place, Settings
from uno_jax.sheets.grid import Cell, Column, make_grid

_SIDE = 112
_CAPTION_SIDE = 176

Maps = Mapping[Place, list[np.ndarray]]
"""Colour maps of the shown pictures at each place, uint8 `[rows, columns, 3]`."""


def aligned_maps(findings: Sequence[Findings], settings: Settings) -> list[Maps]:
    """Colours the maps of every checkpoint, so that equal colours mean the same as far as possible.

    Each map of the first checkpoint is aligned with those of the state and of the time before, and each map of another
    checkpoint with that of the first checkpoint at the same place.
    """
    coloured: list[Maps] = []
    first: dict[Place, np.ndarray] = {}
    for found in findings:
        maps: dict[Place, list[np.ndarray]] = {}
        for i, layer in enumerate(settings.layers):
            for j, time in enumerate(settings.times):
                place = found.maps[layer, time]
                if coloured:
                    references = [first[layer, time]]
                else:
                    before = [(settings.layers[i - 1], time)] * (i > 0) + [(layer, settings.times[j - 1])] * (j > 0)
                    references = [first[each] for each in before]
                rotation = aligning_rotation(place.sample, references)
                if not coloured:
                    first[layer, time] = place.sample @ rotation
                maps[layer, time] = [colours(scores @ rotation) for scores in place.shown]
        coloured.append(maps)
    return coloured


def layer_sheet(
    names: Sequence[str], findings: Sequence[Findings], maps: Sequence[Maps], settings: Settings, time: float
) -> Image.Image:
    """Renders maps of all layers at one time: pictures in rows, layers in columns, checkpoints side by side."""
    at = settings.times.index(time)
    columns = [
        Column("", ("picture", "noised")),
        *(Column(state_name(layer), tuple(names)) for layer in settings.layers),
    ]
    rows = [
        [
            Cell([findings[0].targets[i], findings[0].noised[at][i]]),
            *(Cell([each[layer, time][i] for each in maps]) for layer in settings.layers),
        ]
        for i in range(len(findings[0].targets))
    ]
    return make_grid(f"Principal components of the states at t = {time:g}", columns, rows, _SIDE)


def time_sheet(
    names: Sequence[str], findings: Sequence[Findings], maps: Sequence[Maps], settings: Settings, layer: int
) -> Image.Image:
    """Renders maps of one layer at all times, like `layer_sheet`, beside the noised picture."""
    columns = [Column("", ("picture",)), *(Column(f"t = {time:g}", ("noised", *names)) for time in settings.times)]
    rows = [
        [
            Cell([findings[0].targets[i]]),
            *(
                Cell([findings[0].noised[at][i], *(each[layer, time][i] for each in maps)])
                for at, time in enumerate(settings.times)
            ),
        ]
        for i in range(len(findings[0].targets))
    ]
    return make_grid(f"Principal components of the states, {state_name(layer)}", columns, rows, _SIDE)


def caption_sheet(
    names: Sequence[str], findings: Sequence[Findings], prompts: Sequence[str], settings: Settings
) -> Image.Image:
    """Renders the captions that each checkpoint writes: pictures in rows, times in columns."""
    columns = [Column("picture"), *(Column(f"t = {time:g}") for time in settings.times)]
    rows = [
        [
            Cell([findings[0].targets[i]], [prompt]),
            *(
                Cell(
                    [findings[0].noised[at][i]],
                    [f"{name}: {found.captions[at][i]}" for name, found in zip(names, findings, strict=True)],
                )
                for at in range(len(settings.times))
            ),
        ]
        for i, prompt in enumerate(prompts)
    ]
    title = "What the understanding expert writes of a noised picture"
    return make_grid(title, columns, rows, _CAPTION_SIDE)


def state_name(layer: int) -> str:
    """Returns the name of a state of a token in headings."""
    return f"layer {layer}" if layer else "input"
