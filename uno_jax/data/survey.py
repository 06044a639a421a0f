"""Reads every record of a split as a run would, and states what the records hold."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from uno_jax.batch import REGIONS, Layout
from uno_jax.data.buffers import Buffers, fill_buffers
from uno_jax.data.config import DataConfig
from uno_jax.data.layout import sample_lengths
from uno_jax.data.long_captions import shortest_caption
from uno_jax.data.methods import Inputs
from uno_jax.data.mixture import Group, Mixture, Part
from uno_jax.data.near import difference_hash, near_identical
from uno_jax.data.pipeline import first_draws, sampled_groups
from uno_jax.data.plans import Pixels
from uno_jax.data.record import Record, as_stored
from uno_jax.data.samples import Skipped, complete_sample, read_record
from uno_jax.data.sizes import blank_transforms
from uno_jax.data.tokenizer import Tokenizer

EXAMPLES = 100
"""Records that are named for each finding, at most."""
_AT_A_TIME = 256
_LONGEST_ROUND = 4  # draws for each record, until every record of a rare task is drawn


@dataclass(frozen=True)
class Finding:
    """Something that many people would want to know of their records."""

    name: str
    count: int
    examples: list[str]
    """The first ones: record ids, or pairs of them."""


@dataclass(frozen=True)
class Survey:
    """What the records of a split hold that a run samples."""

    records: dict[str, int]
    """Number of records of each task, by dataset if there are several."""
    buffers: Buffers
    """The samples of all records, in the order in which a run draws them. With weights of tasks, records of frequent
    tasks occur several times."""
    unread: list[Skipped]
    """The records that cannot be read."""
    widths: Int[np.ndarray, " pictures"]
    """Width of each picture that a sample shows, in pixels."""
    heights: Int[np.ndarray, " pictures"]
    findings: list[Finding]
    """All findings, also those with a count of 0."""


class _Facts(NamedTuple):
    """What is kept of a record: nothing that grows with its pictures."""

    lengths: tuple[int, ...]
    shortest: int
    """Tokens of the record's shortest caption."""
    sizes: tuple[tuple[int, int], ...]
    """Width and height of each picture."""
    content: int
    """Hash of the target picture's file."""
    look: int
    colour: tuple[int, int, int]
    """`difference_hash` of the target picture."""
    prompt: int
    """Hash of the prompt, without regard to case and spaces."""
    traits: tuple[str, ...]
    """Names in `_TRAITS` that hold of the record."""


@dataclass(frozen=True)
class _Watched(Inputs):
    """Inputs that remember the pictures that a sample shows."""

    seen: dict[str, Pixels] = field(default_factory=dict)

    def decode(self, encoded: bytes, record: Record, field: str) -> Pixels:
        self.seen[field] = super().decode(encoded, record, field)
        return self.seen[field]


def survey(
    mixture: Mixture,
    config: DataConfig,
    layout: Layout,
    tokenizer: Tokenizer,
    on_record: Callable[[], None] = lambda: None,
) -> Survey:
    """Reads every record that a config samples, decodes each of its pictures once, and encodes its texts.

    Uses a thread for each core. It keeps about 100 bytes of a record.

    Args:
      mixture: the records.
      config: the data config.
      layout: sizes of the model.
      tokenizer: turns text into ids.
      on_record: called after each record, for a progress bar.

    Raises:
      ValueError: the config is invalid. The message names the field.
    """
    groups = sampled_groups(mixture, config, layout)
    inputs = [blank_transforms(part.config.inputs(tokenizer)) for part in mixture.parts]
    special = _spelling(tokenizer)
    columns = _Columns(len(mixture))
    order, occurrences = _order(groups, config)
    # Random numbers are those of the first sample of each record, so in one epoch the samples are those of the run.
    drawn, first = np.unique(order, return_index=True)
    occurrence_of = np.arange(len(mixture))
    occurrence_of[drawn] = occurrences[first]

    def facts_of(number: int) -> _Facts | Skipped:
        part, within = mixture.locate(number)
        return _facts(mixture.parts[part], within, int(occurrence_of[number]), layout, inputs[part], special)

    with ThreadPoolExecutor() as threads:
        for some in _pieces(np.sort(np.concatenate([group.numbers for group in groups])).tolist(), _AT_A_TIME):
            found = threads.map(facts_of, some)
            for number, facts in zip(some, found, strict=True):
                columns.add(number, facts)
                on_record()
    readable = order[columns.read[order]]
    buffers = fill_buffers(
        columns.lengths[readable],
        [columns.unread[number] for number in order[~columns.read[order]].tolist()],
        config,
        lambda position: mixture[int(readable[position])].id,
        columns.shortest[readable],
    )
    return Survey(
        records={
            f"{task} of {part.name}" if part.name else task: len(part.numbers([task]))
            for part in mixture.parts
            for task in part.drawn()
        },
        buffers=buffers,
        unread=list(columns.unread.values()),
        widths=np.array(columns.widths, np.int64),
        heights=np.array(columns.heights, np.int64),
        findings=list(_findings(columns, mixture)),
    )


class _Columns:
    """The facts of all records, by the number of the record."""

    def __init__(self, records: int):
        self.read = np.zeros(records, bool)
        self.lengths = np.zeros((records, len(REGIONS)), np.int64)
        self.shortest = np.zeros(records, np.int64)
        self.content, self.look, self.prompt = (np.zeros(records, np.uint64) for _ in range(3))
        self.colour = np.zeros((records, 3), np.uint8)
        self.widths: list[int] = []
        self.heights: list[int] = []
        self.unread: dict[int, Skipped] = {}
        self.traits: Counter[str] = Counter()
        self.examples: dict[str, list[int]] = {trait: [] for trait in _TRAITS}

    def add(self, number: int, facts: _Facts | Skipped) -> None:
        if isinstance(facts, Skipped):
            self.unread[number] = facts
            return
        self.read[number] = True
        self.lengths[number], self.shortest[number] = facts.lengths, facts.shortest
        self.content[number], self.look[number], self.prompt[number] = facts.content, facts.look, facts.prompt
        self.colour[number] = facts.colour
        for width, height in facts.sizes:
            self.widths.append(width)
            self.heights.append(height)
        self.traits.update(facts.traits)
        for trait in facts.traits:
            if len(self.examples[trait]) < EXAMPLES:
                self.examples[trait].append(number)


_ENLARGED = "records with a picture that the autoencoder's transform enlarges"
_EMPTY = "records with an empty text"
_LONG_CAPTION = "records with a caption too long for a row"
_SAME = "records with a caption equal to the prompt"
_NO_CAPTION = "records without the caption that the method trains"
_SPECIAL = "records with a special token in a text"
_TRAITS = (_ENLARGED, _EMPTY, _LONG_CAPTION, _SAME, _NO_CAPTION, _SPECIAL)


def _facts(
    part: Part, number: int, occurrence: int, layout: Layout, inputs: Inputs, special: re.Pattern[str]
) -> _Facts | Skipped:
    config = part.config
    record = read_record(part, number)
    if isinstance(record, Skipped):
        return record
    record = as_stored(record)  # a run with moments and features needs no pixels, but the survey looks at them
    watched = _Watched(**{each.name: getattr(inputs, each.name) for each in dataclasses.fields(inputs)})
    sample = complete_sample(record, config, watched, occurrence)
    if isinstance(sample, Skipped):
        return sample
    lengths = sample_lengths(sample.plan, layout)
    look, colour = difference_hash(watched.seen["image"])
    prompt = _plain(record.prompt)
    texts = (record.prompt, *record.captions, record.answer)
    room = config.caption_tokens - 2  # of the delimiters
    required = (record.answer,) if record.task == "understanding" else (record.prompt, *record.captions)
    sizes = tuple((pixels.shape[1], pixels.shape[0]) for pixels in watched.seen.values())
    least = config.vae_transform.min_side
    held = {
        _ENLARGED: record.task != "understanding" and any(min(size) < least for size in sizes),
        _EMPTY: any(not text.strip() for text in required),
        _LONG_CAPTION: lengths["caption"] > 0
        and any(len(inputs.tokenizer.encode(caption)) > room for caption in record.captions),
        _SAME: any(_plain(caption) == prompt for caption in record.captions),
        _NO_CAPTION: sample.without_caption,
        _SPECIAL: any(special.search(text) for text in texts),
    }
    return _Facts(
        lengths=tuple(lengths[region] for region in REGIONS),
        shortest=shortest_caption(record, inputs.tokenizer) if lengths["caption"] else 0,
        sizes=sizes,
        content=_hash(record.image),
        look=look,
        colour=colour,
        prompt=_hash(prompt.encode()),
        traits=tuple(trait for trait, holds in held.items() if holds),
    )


def _order(groups: Sequence[Group], config: DataConfig) -> tuple[Int[np.ndarray, " draws"], Int[np.ndarray, " draws"]]:
    """Returns record and occurrence of each sample in the order of a run, until every record has been drawn."""
    count = sum(len(group.numbers) for group in groups)
    if len(groups) > 1:
        total = sum(group.weight for group in groups)
        slowest = max(len(group.numbers) * total / group.weight for group in groups)
        draws = min(math.ceil(slowest), _LONGEST_ROUND * count)
    else:
        config, draws = dataclasses.replace(config, epochs=1), count + config.virtual_shards
    found = np.array(list(first_draws(groups, config, draws)), np.int64).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def _findings(columns: _Columns, mixture: Mixture) -> Iterator[Finding]:
    def named(numbers: Sequence[int]) -> list[str]:
        return [mixture[number].id for number in numbers[:EXAMPLES]]

    for trait in _TRAITS:
        yield Finding(trait, columns.traits[trait], named(columns.examples[trait]))
    numbers = np.flatnonzero(columns.read)
    again = _later(columns.prompt[numbers])
    yield Finding("records with the prompt of an earlier one", len(again), named(numbers[again].tolist()))
    again = _later(columns.content[numbers])
    yield Finding("records with the picture of an earlier one", len(again), named(numbers[again].tolist()))
    distinct = np.delete(numbers, again)
    pairs = distinct[near_identical(columns.look[distinct], columns.colour[distinct])]
    examples = [" = ".join(named(pair)) for pair in pairs[:EXAMPLES].tolist()]
    yield Finding("records with nearly the picture of an earlier one", len(pairs), examples)


def _later(values: np.ndarray) -> np.ndarray:
    """Returns the positions of values that occur before."""
    _, first = np.unique(values, return_index=True)
    return np.delete(np.arange(len(values)), first)


def _spelling(tokenizer: Tokenizer) -> re.Pattern[str]:
    """Returns a pattern of texts that spell a special token."""
    return re.compile("|".join(re.escape(text) for text in tokenizer.added_texts))


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _hash(content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big")


def _pieces(numbers: list[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(numbers), size):
        yield numbers[start : start + size]
