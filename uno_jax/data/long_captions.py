"""Samples whose caption is too long for a row, if `data.long_captions` is `replace`.

The shortest of the record's captions takes its place. If that is too long, too, the sample goes without supervision.
No random number is drawn for it, so everything else of the sample, and all other samples, stay as they are.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from uno_jax.batch import REGIONS
from uno_jax.data.methods import captions_of
from uno_jax.data.plans import Item, NoisedTarget, Plan
from uno_jax.data.record import Record
from uno_jax.data.tokenizer import Tokenizer

OTHER_CAPTION = "other_caption"
UNSUPERVISED = "unsupervised"
"""What becomes of such a sample."""

_CAPTION, _QUERY = REGIONS.index("caption"), REGIONS.index("query")


def with_room(plan: Plan, record: Record, tokenizer: Tokenizer, room: int) -> tuple[Plan, str]:
    """Returns the plan of a sample whose caption takes more than `room` tokens without that caption.

    The string is `OTHER_CAPTION` if another caption is in its place, and `UNSUPERVISED` if the sample has neither
    caption nor metaqueries.
    """
    shortest = _shortest(record, tokenizer)
    fits = len(shortest) + 2 <= room

    def changed(item: Item) -> Item:
        if not isinstance(item, NoisedTarget) or item.caption is None:
            return item
        return replace(item, caption=shortest) if fits else replace(item, caption=None, query_pixels=None)

    return tuple(changed(item) for item in plan), OTHER_CAPTION if fits else UNSUPERVISED


def shortest_caption(record: Record, tokenizer: Tokenizer) -> int:
    """Returns the tokens of the shortest caption that a sample of the record can have; 0 if there is none."""
    return len(_shortest(record, tokenizer)) + 2 if captions_of(record) else 0


class Lengths(NamedTuple):
    """Tokens of samples, and what becomes of those whose caption is too long."""

    lengths: Int[np.ndarray, "samples regions"]
    other_caption: Bool[np.ndarray, " samples"]
    unsupervised: Bool[np.ndarray, " samples"]


def lengths_with_room(
    lengths: Int[np.ndarray, "samples regions"], shortest: Int[np.ndarray, " samples"], room: int
) -> Lengths:
    """Returns the lengths of the samples that `with_room` makes, in the order of `REGIONS`.

    Args:
      lengths: tokens of each sample with the caption that was drawn.
      shortest: `shortest_caption` of the record of each.
      room: tokens of a caption, at most.
    """
    long = lengths[:, _CAPTION] > room
    other, none = long & (shortest <= room), long & (shortest > room)
    changed = lengths.copy()
    changed[other, _CAPTION] = shortest[other]
    changed[none, _CAPTION] = changed[none, _QUERY] = 0
    return Lengths(changed, other, none)


def _shortest(record: Record, tokenizer: Tokenizer) -> tuple[int, ...]:
    return min((tuple(tokenizer.encode(caption)) for caption in captions_of(record)), key=len)
