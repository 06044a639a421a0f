"""One record as the arrays of a sample: its method, condition dropout and layout, with its own random numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from uno_jax.batch import Layout
from uno_jax.data.dropout import drop_conditions
from uno_jax.data.layout import lay_out, sample_lengths
from uno_jax.data.methods import Inputs, make_sample
from uno_jax.data.mixture import Part
from uno_jax.data.record import RecordError


@dataclass(frozen=True)
class SampleInfo:
    """What the pipeline reports of a sample."""

    id: str | None
    """Record id; None for a placeholder that only reports skipped samples."""
    part: str = ""
    """Name of its dataset in a mixture."""
    without_caption: bool = False
    skipped: tuple[Skipped, ...] = ()
    """Samples skipped since the one before."""


class Skipped(NamedTuple):
    """A sample that cannot be used: its record cannot be read, or it fits no row."""

    id: str
    """Id of its record; the number of the record in its split if the record cannot be read."""
    cause: str
    """`RecordError.cause`, or the config field with the length of the region that it exceeds."""
    message: str
    """What is wrong, and what to do."""


def read_sample(part: Part, number: int, layout: Layout, inputs: Inputs, occurrence: int) -> dict[str, Any] | Skipped:
    """Returns the arrays of each region of the sample of a record of a part, and its `SampleInfo` as `info`.

    All randomness follows from the seed of the part's config and the occurrence.
    """
    config = part.config
    id_ = f"{part.name}:number {number}" if part.name else f"number {number}"
    try:
        record = part.records[number]
        id_ = record.id
        sample = make_sample(record, config, inputs, np.random.default_rng((config.seed, occurrence, 0)))
    except RecordError as error:
        return Skipped(id_, error.cause, str(error))
    # The complete sample must fit. Otherwise long samples would only occur with dropped conditions.
    for region, tokens in sample_lengths(sample.plan, layout).items():
        if tokens > config.capacities[region]:
            problem = f"needs {tokens} {region} tokens, but a row has {config.capacities[region]}"
            return Skipped(id_, f"{region}_tokens", f"record {id_!r} {problem}: increase data.{region}_tokens")
    # A separate generator, so that methods with different numbers of draws drop the same conditions.
    plan = drop_conditions(sample.plan, config, np.random.default_rng((config.seed, occurrence, 1)))
    regions = lay_out(plan, layout, inputs.tokenizer, occurrence=occurrence, task=sample.task)
    return {**regions, "info": SampleInfo(sample.id, part.name, sample.without_caption)}
