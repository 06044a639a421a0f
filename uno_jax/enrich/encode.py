"""Precomputes moments or vision features of a dataset's pictures, for `data.encoded` or `data.features` of a run."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from uno_jax.data.annex import Annex, Shard, begin_annex
from uno_jax.data.check import check_choices, check_grids
from uno_jax.data.encoded import to_entry
from uno_jax.data.features import feature_needs
from uno_jax.data.methods import Inputs
from uno_jax.data.plans import Pixels
from uno_jax.data.record import Record, RecordError
from uno_jax.data.records import has_split, open_records
from uno_jax.data.tokenizer import byte_tokenizer
from uno_jax.enrich.encoders import Encoder, feature_encoder, moment_encoder
from uno_jax.enrich.shards import RECORDS_PER_SHARD, make_shards, waiting_for
from uno_jax.interop.identity import about_checkpoint, folder_name
from uno_jax.interop.source import find_source
from uno_jax.models.config import training_layout
from uno_jax.run.config import RunConfig, check_config
from uno_jax.run.programs import config_errors


def encode(
    config: RunConfig,
    checkpoint: str,
    out: Path,
    console: Console,
    *,
    features: bool = False,
    records_per_shard: int = RECORDS_PER_SHARD,
    part: tuple[int, int] = (0, 1),
) -> Annex:
    """Encodes the pictures that runs of `config` give as latents, on all devices of this host.

    Shards that are there already are kept, so a command that was killed goes on where it stopped. Pictures that cannot
    be decoded are reported and kept as such, so that a run skips and counts their records.

    Args:
      config: config of the runs: its dataset (no mixture), its splits, and its transforms. Its paths are of this
        machine.
      checkpoint: the model, as for `find_source`.
      out: folder of the moments or features.
      console: shows the progress.
      features: makes vision features of the pictures that are given as ViT patches or as targets of metaqueries,
        instead of moments.
      records_per_shard: number of records of a shard.
      part: share of several processes (`make_shards`).

    Raises:
      ConfigError: the config is invalid, or of another encoder than the checkpoint's.
      CheckpointError: there is no checkpoint, or it is damaged.
      AnnexError: `out` holds something else.
    """
    check_config(config)
    others = [config.evaluation.split] if has_split(config.data.directory, config.evaluation.split) else []
    splits = list(dict.fromkeys([config.data.split, *others]))
    for split in splits:
        open_records(config.data.directory, split).check()
    _check_data(config)
    encoder = (feature_encoder if features else moment_encoder)(config, find_source(checkpoint))
    facts = {"checkpoint": {"name": folder_name(checkpoint), **about_checkpoint(checkpoint)}, **encoder.facts}
    annex = begin_annex(out, encoder.kind, config.data.directory, splits, records_per_shard, facts)
    failed: list[str] = []
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        make = functools.partial(_entries, config, encoder, threads, failed)
        make_shards(annex, make, console, stage="Encoding pictures", part=part)
    for problem in failed[:20]:
        console.print(f"not encoded: {problem}", markup=False, highlight=False, soft_wrap=True)
    if failed:
        console.print(f"{len(failed)} pictures were not encoded. Runs skip and count their records.")
    left = waiting_for(annex)
    if left:
        console.print(f"{left} shards are left to other processes.")
    return annex


def _check_data(config: RunConfig) -> None:
    """Requires every picture to have a size that its encoder takes.

    Raises:
      ConfigError: a field is invalid. The message names it.
    """
    data = config.data
    config_errors(check_choices, data)
    metaqueries = feature_needs(data)["metaqueries"]
    config_errors(functools.partial(check_grids, data, training_layout(config.model), metaqueries=metaqueries))


def _entries(
    config: RunConfig, encoder: Encoder, threads: ThreadPoolExecutor, failed: list[str], shard: Shard
) -> Iterator[bytes]:
    """Yields the entry of each record of a shard."""
    records = open_records(config.data.directory, shard.split)
    inputs = replace(config.data.inputs(byte_tokenizer()), reduced_jpeg=False)  # the work of once, so at its best
    prepare = functools.partial(_pixels, encoder, inputs)
    decoded = list(threads.map(prepare, (_read(records, number) for number in shard.records)))
    pictures = [picture for found in decoded for picture in found if not isinstance(picture, RecordError)]
    encoded = iter(encoder.encode(pictures))
    for found in decoded:
        failed += dict.fromkeys(str(picture) for picture in found if isinstance(picture, RecordError))
        entry = [picture if isinstance(picture, RecordError) else next(encoded) for picture in found]
        yield to_entry(entry, encoder.dtype)


def _read(records: Any, number: int) -> Record | None:
    """Returns a record, or None if it is damaged: a run cannot read it either, and says so."""
    try:
        record: Record = records[number]
    except RecordError:
        return None
    return record


def _pixels(encoder: Encoder, inputs: Inputs, record: Record | None) -> Sequence[Pixels | RecordError]:
    """Returns the pictures of a record that are encoded, at the size of the encoder's input. Each is decoded once."""
    if record is None:
        return ()
    decode = functools.cache(functools.partial(inputs.picture, record))
    found: list[Pixels | RecordError] = []
    for transform, number in encoder.uses(inputs, record):
        try:
            found.append(transform.resize(decode(number)))
        except RecordError as error:
            found.append(error)
    return found
