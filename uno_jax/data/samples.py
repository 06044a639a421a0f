"""One record as the arrays of a sample: its method, condition dropout and layout, with its own random numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from uno_jax.batch import Layout
from uno_jax.data.config import DataConfig
from uno_jax.data.dropout import drop_conditions
from uno_jax.data.layout import lay_out, sample_lengths
from uno_jax.data.methods import Inputs, make_sample
from uno_jax.data.record import Record


@dataclass(frozen=True)
class SampleInfo:
    """What the pipeline reports of a sample."""

    id: str | None
    """Record id; None for a placeholder that only reports skipped samples."""
    without_caption: bool = False
    skipped: int = 0
    """Samples skipped since the one before."""


@dataclass(frozen=True)
class Oversized:
    """A sample that fits no row, and the first region that is too long."""

    id: str
    region: str
    tokens: int


def sample_arrays(
    record: Record, config: DataConfig, layout: Layout, inputs: Inputs, occurrence: int
) -> dict[str, Any] | Oversized:
    """Returns the arrays of each region of a record's sample, and its `SampleInfo` as `info`.

    All randomness follows from `config.seed` and the occurrence.

    Raises:
      ValueError: a picture cannot be decoded. The message names record and field.
    """
    sample = make_sample(record, config, inputs, np.random.default_rng((config.seed, occurrence, 0)))
    # The complete sample must fit. Otherwise long samples would only occur with dropped conditions.
    for region, tokens in sample_lengths(sample.plan, layout).items():
        if tokens > config.capacities[region]:
            return Oversized(sample.id, region, tokens)
    # A separate generator, so that methods with different numbers of draws drop the same conditions.
    plan = drop_conditions(sample.plan, config, np.random.default_rng((config.seed, occurrence, 1)))
    regions = lay_out(plan, layout, inputs.tokenizer, occurrence=occurrence, task=sample.task)
    return {**regions, "info": SampleInfo(sample.id, sample.without_caption)}
