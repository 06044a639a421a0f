"""Writes further captions of a dataset's pictures with a model's understanding expert, for `data.captions` of a run."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from uno_jax.config import to_json
from uno_jax.data.annex import Annex, Shard, begin_annex
from uno_jax.data.captions import KIND, WrittenCaption, to_entry
from uno_jax.data.decoding import decode_rgb
from uno_jax.data.plans import Plan
from uno_jax.data.record import Record, RecordError
from uno_jax.data.records import StoredRecords, open_records
from uno_jax.enrich.shards import RECORDS_PER_SHARD, make_shards, waiting_for
from uno_jax.inference.contexts import ContextPart, context_plan
from uno_jax.inference.picture_settings import LARGEST_SEED
from uno_jax.inference.reader import Reader
from uno_jax.sampling.text import TextConfig

MAX_LENGTH = 128
"""Default maximum length of a caption in tokens, start token included."""
_CAPTIONED = ("text_to_image", "editing")


@dataclass(frozen=True)
class Recaption:
    """What is asked of which pictures, and how the answers are written."""

    directory: Path
    """The dataset."""
    splits: tuple[str, ...]
    styles: Mapping[str, str]
    """Name -> question, as `STYLES`."""
    text: TextConfig = field(default_factory=lambda: TextConfig(max_length=MAX_LENGTH))
    batch: int = 32
    """Captions that are written at once."""
    records_per_shard: int = RECORDS_PER_SHARD


@dataclass
class Counts:
    """What was written by this process."""

    captions: int = 0
    cut: int = 0
    """Captions cut at the maximum length."""
    unread: int = 0
    """Records whose picture cannot be read."""


def recaption(
    reader: Reader,
    checkpoint: Mapping[str, Any],
    wanted: Recaption,
    out: Path,
    console: Console,
    *,
    part: tuple[int, int] = (0, 1),
) -> Annex:
    """Writes a caption in each style for the target picture of every record that has one.

    Shards that are there already are kept, so a command that was killed goes on where it stopped. A caption depends on
    the model, the picture, the style, the settings, and the number of devices.

    Args:
      reader: the model.
      checkpoint: `name` and `sha256` of the model, which are stored with each caption, and what else identifies it.
      wanted: what to write.
      out: folder of the captions.
      console: shows the progress.
      part: share of several processes (`make_shards`).

    Raises:
      AnnexError: `out` holds something else.
      UserError: a question is longer than the context of the model, or as for `check_splits`.
    """
    check_splits(wanted.directory, wanted.splits)
    for question in wanted.styles.values():  # before anything is written
        context_plan([question] if question else [], reader.model, latents=False, written=wanted.text.max_length)
    facts = {
        "checkpoint": dict(checkpoint),
        "compute_dtype": reader.model.precision,
        "styles": [list(style) for style in wanted.styles.items()],  # in order, which JSON objects do not keep
        "text": to_json(wanted.text),
        "batch": wanted.batch,
    }
    annex = begin_annex(out, KIND, wanted.directory, wanted.splits, wanted.records_per_shard, facts)
    counts = Counts()
    name = f"{checkpoint['name']} {checkpoint['sha256']}"
    make = functools.partial(_entries, reader, name, wanted, counts)
    make_shards(annex, make, console, stage="Writing captions", part=part)
    console.print(f"{counts.captions:,} captions written.")
    if counts.cut:
        console.print(
            f"{counts.cut:,} were cut at --max_length={wanted.text.max_length} and are not trained on. Increase it for "
            "whole ones."
        )
    if counts.unread:
        console.print(f"{counts.unread:,} records cannot be read and have no captions. Runs skip and count them.")
    left = waiting_for(annex)
    if left:
        console.print(f"{left} shards are left to other processes.")
    return annex


def check_splits(directory: Path, splits: Sequence[str]) -> None:
    """Requires the splits of a dataset.

    Raises:
      UserError: the dataset or a split does not exist, or a file of it is missing or cut.
    """
    for split in splits:
        open_records(directory, split).check()


@dataclass(frozen=True)
class _Job:
    """A caption to write."""

    number: int
    """Number of the record in its shard."""
    record: Record
    style: str


def _entries(reader: Reader, checkpoint: str, wanted: Recaption, counts: Counts, shard: Shard) -> Iterator[bytes]:
    """Yields the entry of each record of a shard."""
    records = open_records(wanted.directory, shard.split)
    found = [_read(records, number) for number in shard.records]
    counts.unread += sum(record is None for record in found)
    # Style by style, so that the questions of a batch have the same length.
    jobs = [
        _Job(number, record, style)
        for style in wanted.styles
        for number, record in enumerate(found)
        if record is not None and record.task in _CAPTIONED
    ]
    written: dict[int, list[WrittenCaption]] = {number: [] for number in range(len(found))}
    for start in range(0, len(jobs), wanted.batch):
        batch = jobs[start : start + wanted.batch]
        plans = [_plan(reader, job, wanted) for job in batch]
        seeds = [_seed(job) for job in batch]
        [*_, texts] = reader.write(reader.read(plans, seeds), wanted.text, seeds)
        for job, ids in zip(batch, texts, strict=True):
            text = reader.model.tokenizer.decode(ids).strip()
            cut = len(ids) == wanted.text.max_length - 1  # the start token is no part of it
            written[job.number].append(WrittenCaption(text, job.style, checkpoint, cut))
            counts.captions += 1
            counts.cut += cut
    for captions in written.values():
        yield to_entry(captions)


def _read(records: StoredRecords, number: int) -> Record | None:
    """Returns a record, or None if it or its picture cannot be read."""
    try:
        record = records[number]
        if record.task in _CAPTIONED:
            decode_rgb(record.image, record.id)
    except RecordError:
        return None
    return record


def _plan(reader: Reader, job: _Job, wanted: Recaption) -> Plan:
    pixels, question = decode_rgb(job.record.image, job.record.id), wanted.styles[job.style]
    parts: list[ContextPart] = [pixels, question] if question else [pixels]
    return context_plan(parts, reader.model, latents=False, written=wanted.text.max_length)


def _seed(job: _Job) -> int:
    digest = hashlib.sha256(f"{job.style}/{job.record.id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % (LARGEST_SEED + 1)
