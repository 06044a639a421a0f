"""Converts a source with Apache Beam, on this machine or a cluster. The dataset is that of `ProcessRunner`.

Two pipelines: one converts the parts of all pieces of the source, each of which one worker reads; the other one writes
the shards. In between, this machine looks at the facts of the records, and decides which of them are accepted and where
they go. The workers read and write the same folder of parts, and have the project installed.
"""

from __future__ import annotations

import importlib
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from uno_jax.data.conversion.convert import Orders
from uno_jax.data.conversion.parts import (
    ConvertParts,
    Folder,
    Part,
    PartNumber,
    converted_parts,
    is_missing,
    parts_of_piece,
)
from uno_jax.data.conversion.shards import WriteShard
from uno_jax.data.sources.source import Opened
from uno_jax.data.storage import store
from uno_jax.process.errors import UserError


class BeamError(UserError):
    """Beam is not installed, or a pipeline failed."""


@dataclass(frozen=True)
class BeamRunner:
    """Converts in pipelines of Apache Beam."""

    flags: tuple[str, ...]
    """Flags of Beam, such as `--runner=DataflowRunner`."""

    def convert(self, opened: Opened, folder: Folder, items_per_part: int) -> Iterator[PartNumber]:
        beam = import_beam()
        pieces = list(enumerate(opened.pieces))
        with self._pipeline() as pipeline:
            (
                pipeline
                | "Pieces" >> beam.Create(pieces, reshuffle=True)
                | "Parts" >> beam.FlatMap(_missing_parts, folder, items_per_part)
                | "Spread" >> beam.Reshuffle()
                | "Convert" >> beam.Map(ConvertParts(folder, opened.make))
            )
        yield from converted_parts(folder)

    def write(self, orders: Orders, parts: Folder) -> Iterator[int]:
        beam = import_beam()
        files = []
        for file, shard in orders:  # which are too large for the graph of a pipeline
            order = parts / f"order-{file.name}"
            store(order, pickle.dumps((file, shard)))
            files.append(order)
        with self._pipeline() as pipeline:
            (pipeline | "Orders" >> beam.Create(files, reshuffle=True) | "Write" >> beam.Map(_write, parts))
        return (len(shard.records) for _, shard in orders)

    def _pipeline(self) -> Any:
        options = importlib.import_module("apache_beam.options.pipeline_options")
        return import_beam().Pipeline(options=options.PipelineOptions(list(self.flags)))


def import_beam() -> Any:
    """Imports Apache Beam.

    Raises:
      BeamError: it is not installed. The message says what to install.
    """
    try:
        return importlib.import_module("apache_beam")
    except ImportError as error:
        raise BeamError(
            f"--runner=beam needs apache_beam, which cannot be imported ({error}). Install the extra `beam`: "
            "pip install '.[beam]' (docs/install.md)"
        ) from error


def _missing_parts(piece: tuple[int, Any], folder: Folder, items_per_part: int) -> Iterator[Part]:
    for part in parts_of_piece(*piece, items_per_part):
        if is_missing(folder, part.number):
            yield part


def _write(order: Folder, parts: Folder) -> int:
    return WriteShard(parts)(pickle.loads(order.read_bytes()))
