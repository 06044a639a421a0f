"""Precomputes the autoencoder's moments of a dataset's pictures, for `data.encoded` of a run."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from uno_jax.config import ConfigError
from uno_jax.data.annex import Annex, Shard, begin_annex
from uno_jax.data.encoded import KIND, to_entry
from uno_jax.data.methods import Inputs
from uno_jax.data.plans import Pixels
from uno_jax.data.record import Record, RecordError
from uno_jax.data.records import has_split, open_records
from uno_jax.data.tokenizer import byte_tokenizer
from uno_jax.enrich.shards import RECORDS_PER_SHARD, make_shards, waiting_for
from uno_jax.interop.identity import about_checkpoint, folder_name
from uno_jax.interop.source import find_source
from uno_jax.models.autoencoder import make_autoencoder
from uno_jax.models.autoencoder_batch import encode_pictures
from uno_jax.models.config import autoencoder_fields
from uno_jax.parallel.mesh import host_mesh, replicated
from uno_jax.run.config import RunConfig, check_config
from uno_jax.run.encoded import moment_facts, parameters_hash


def encode(
    config: RunConfig,
    checkpoint: str,
    out: Path,
    console: Console,
    *,
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
      out: folder of the moments.
      console: shows the progress.
      records_per_shard: number of records of a shard.
      part: share of several processes (`make_shards`).

    Raises:
      ConfigError: the config is invalid, or of another autoencoder than the checkpoint's.
      CheckpointError: there is no checkpoint, or it is damaged.
      AnnexError: `out` holds something else.
    """
    check_config(config)
    others = [config.evaluation.split] if has_split(config.data.directory, config.evaluation.split) else []
    splits = list(dict.fromkeys([config.data.split, *others]))
    for split in splits:
        open_records(config.data.directory, split).check()
    source = find_source(checkpoint)
    _check_model(config, source.model(), source.origin)
    params = source.autoencoder_params(replicated(host_mesh()))
    about = {"name": folder_name(checkpoint), **about_checkpoint(checkpoint)}
    facts = {"checkpoint": about, **moment_facts(config.model, config.data, parameters_hash(params))}
    annex = begin_annex(out, KIND, config.data.directory, splits, records_per_shard, facts)
    failed: list[str] = []
    model = config.model
    encode_all = functools.partial(encode_pictures, make_autoencoder(model.autoencoder), params, config=model)
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        make = functools.partial(_entries, config, encode_all, threads, failed)
        make_shards(annex, make, console, stage="Encoding pictures", part=part)
    for problem in failed[:20]:
        console.print(f"not encoded: {problem}", markup=False, highlight=False, soft_wrap=True)
    if failed:
        console.print(f"{len(failed)} pictures were not encoded. Runs skip and count their records.")
    left = waiting_for(annex)
    if left:
        console.print(f"{left} shards are left to other processes.")
    return annex


def _check_model(config: RunConfig, saved: Any, origin: str) -> None:
    ours, theirs = autoencoder_fields(config.model), autoencoder_fields(saved)
    for name in sorted({*ours, *theirs}):
        if ours.get(name) != theirs.get(name):
            raise ConfigError(
                f"the autoencoder of {origin} has {name} {theirs.get(name)}, and config.model has {ours.get(name)}. "
                "Give the config of the model in --checkpoint"
            )


def _entries(
    config: RunConfig, encode_all: Any, threads: ThreadPoolExecutor, failed: list[str], shard: Shard
) -> Iterator[bytes]:
    """Yields the entry of each record of a shard."""
    records = open_records(config.data.directory, shard.split)
    inputs = replace(config.data.inputs(byte_tokenizer()), reduced_jpeg=False)  # the work of once, so at its best
    prepare = functools.partial(_pixels, config, inputs)
    decoded = list(threads.map(prepare, (_read(records, number) for number in shard.records)))
    pictures = [picture for found in decoded for picture in found if not isinstance(picture, RecordError)]
    moments = iter(encode_all(pictures))
    for found in decoded:
        failed += [str(picture) for picture in found if isinstance(picture, RecordError)]
        yield to_entry([picture if isinstance(picture, RecordError) else next(moments) for picture in found])


def _read(records: Any, number: int) -> Record | None:
    """Returns a record, or None if it is damaged: a run cannot read it either, and says so."""
    try:
        record: Record = records[number]
    except RecordError:
        return None
    return record


def _pixels(config: RunConfig, inputs: Inputs, record: Record | None) -> Sequence[Pixels | RecordError]:
    """Returns the pictures of a record at the size of the autoencoder's input, as far as they are given as latents."""
    if record is None or (record.task == "understanding" and config.data.method != "pretrain"):
        return ()
    found: list[np.ndarray | RecordError] = []
    for number in range(1 + len(record.sources)):
        try:
            found.append(inputs.vae_transform.resize(inputs.picture(record, number)))
        except RecordError as error:
            found.append(error)
    return found
