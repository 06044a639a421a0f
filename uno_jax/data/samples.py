"""One record as the arrays of a sample: its method, condition dropout and layout, with its own random numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from uno_jax.batch import Layout
from uno_jax.data.config import DataConfig
from uno_jax.data.dropout import drop_conditions
from uno_jax.data.layout import lay_out, sample_lengths
from uno_jax.data.long_captions import OTHER_CAPTION, UNSUPERVISED, with_room
from uno_jax.data.methods import Inputs, Sample, make_sample
from uno_jax.data.mixture import Part
from uno_jax.data.record import Record, RecordError


@dataclass(frozen=True)
class SampleInfo:
    """What the pipeline reports of a sample."""

    id: str | None
    """Record id; None for a placeholder that only reports skipped samples."""
    part: str = ""
    """Name of its dataset in a mixture."""
    without_caption: bool = False
    kept: Skipped | None = None
    """Why its caption was replaced or left out, if it was too long."""
    skipped: tuple[Skipped, ...] = ()
    """Samples skipped since the one before."""


class Skipped(NamedTuple):
    """A sample that cannot be used as it is: its record cannot be read, or it fits no row."""

    id: str
    """Id of its record; the number of the record in its split if the record cannot be read."""
    cause: str
    """`RecordError.cause`, or the config field with the length of the first region that it exceeds."""
    message: str
    """What is wrong, and what to do."""
    needs: tuple[tuple[str, int], ...] = ()
    """Each region that it exceeds, and its tokens there."""
    outcome: str = "skipped"
    """What became of it: `skipped`, or it was trained on, as `other_caption` or `unsupervised` (`long_captions.py`)."""


class SkippedCount:
    """Counts skipped samples by cause and, if they are too long, by region."""

    def __init__(self, skipped: Iterable[Skipped] = ()):
        self.causes: Counter[str] = Counter()
        self.over: Counter[str] = Counter()
        """For each region, the samples that exceed it. One that exceeds several counts in each."""
        self.longest: dict[str, int] = {}
        """For each of these regions, the tokens of the longest sample."""
        self.add(skipped)

    def add(self, skipped: Iterable[Skipped]) -> None:
        """Counts further samples."""
        for skip in skipped:
            self.causes[skip.cause] += 1
            for region, tokens in skip.needs:
                self.over[region] += 1
                self.longest[region] = max(tokens, self.longest.get(region, 0))

    @property
    def advice(self) -> str:
        """Names each config field to enlarge, with the value that suffices for all; empty if none is too small."""
        fields = [
            f"data.{region}_tokens to {self.longest[region]:,} ({count:,})" for region, count in self.over.most_common()
        ]
        return f"To keep the longest ones, increase {' and '.join(fields)}. " if fields else ""


def outcomes(count: Mapping[str, int]) -> str:
    """Says what became of samples that are trained on although their caption is too long, given counts by outcome."""
    count = Counter(count)
    return f"{count[OTHER_CAPTION]:,} with another caption, {count[UNSUPERVISED]:,} without supervision"


def read_sample(
    part: Part, number: int, layout: Layout, inputs: Inputs, occurrence: int, dataset: int = 0
) -> dict[str, Any] | Skipped:
    """Returns the arrays of each region of the sample of a record of a part, and its `SampleInfo` as `info`.

    All randomness follows from the seed of the part's config and the occurrence. `dataset` is the place of the part in
    its mixture.
    """
    config, record = part.config, read_record(part, number)
    if isinstance(record, Skipped):
        return record
    sample = complete_sample(record, config, inputs, occurrence)
    if isinstance(sample, Skipped):
        return sample
    plan, kept = sample.plan, None
    lengths = sample_lengths(plan, layout)
    if config.long_captions == "replace" and lengths["caption"] > config.caption_tokens:
        plan, outcome = with_room(plan, record, inputs.tokenizer, config.caption_tokens)
        kept = long_caption(sample.id, lengths["caption"], config, outcome)
        lengths = sample_lengths(plan, layout)
    # The complete sample must fit. Otherwise long samples would only occur with dropped conditions.
    long = too_long(sample.id, lengths, config.capacities)
    if long is not None:
        return long
    # A separate generator, so that methods with different numbers of draws drop the same conditions.
    plan = drop_conditions(plan, config, np.random.default_rng((config.seed, occurrence, 1)))
    regions = lay_out(plan, layout, inputs.tokenizer, occurrence=occurrence, task=sample.task, dataset=dataset)
    return {**regions, "info": SampleInfo(sample.id, part.name, sample.without_caption, kept)}


def read_record(part: Part, number: int) -> Record | Skipped:
    """Returns a record of a part, or why it cannot be read."""
    try:
        return part.records[number]
    except RecordError as error:
        id_ = f"{part.name}:number {number}" if part.name else f"number {number}"
        return Skipped(id_, error.cause, str(error))


def complete_sample(record: Record, config: DataConfig, inputs: Inputs, occurrence: int) -> Sample | Skipped:
    """Returns the sample of a record before condition dropout, whether or not it fits a row."""
    try:
        return make_sample(record, config, inputs, np.random.default_rng((config.seed, occurrence, 0)))
    except RecordError as error:
        return Skipped(record.id, error.cause, str(error))


def too_long(id_: str, lengths: Mapping[str, int], capacities: Mapping[str, int]) -> Skipped | None:
    """Returns why a sample of these tokens per region fits no row; None if it fits one."""
    needs = tuple((region, tokens) for region, tokens in lengths.items() if tokens > capacities[region])
    if not needs:
        return None
    [(region, tokens), *_] = needs
    return Skipped(id_, f"{region}_tokens", _needs(id_, region, tokens, capacities[region]), needs)


def long_caption(id_: str, tokens: int, config: DataConfig, outcome: str) -> Skipped:
    """Returns what is reported of a sample that is trained on although its caption takes so many tokens."""
    message = _needs(id_, "caption", tokens, config.caption_tokens)
    return Skipped(id_, "caption_tokens", message, (("caption", tokens),), outcome)


def _needs(id_: str, region: str, tokens: int, room: int) -> str:
    problem = f"needs {tokens} {region} tokens, but a row has {room}"
    return f"record {id_!r} {problem}: increase data.{region}_tokens"
