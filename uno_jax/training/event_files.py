"""TensorBoard event files behind clu's `MetricWriter` interface, without TensorFlow."""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from tensorboard.summary import Writer

_TENSORFLOW_WRITER = "clu.metric_writers.summary_writer"
if importlib.util.find_spec("tensorflow") is None and _TENSORFLOW_WRITER not in sys.modules:
    # clu always imports this writer, and fails if TensorFlow is missing.
    sys.modules[_TENSORFLOW_WRITER] = types.ModuleType(_TENSORFLOW_WRITER)
    sys.modules[_TENSORFLOW_WRITER].SummaryWriter = None  # type: ignore[attr-defined]
from clu.metric_writers import AsyncWriter, MetricWriter  # noqa: E402


class EventFileWriter(MetricWriter):
    """Writes scalars to an event file. Other kinds of summaries raise NotImplementedError."""

    def __init__(self, directory: Path):
        """Opens a new event file in `directory`, which is created if needed."""
        self._writer = Writer(str(directory))

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Adds the scalars of `step`, rounded to float32."""
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)

    def flush(self) -> None:
        """Blocks until all scalars are in the file."""
        self._writer.flush()

    def close(self) -> None:
        """Flushes and closes the file."""
        self._writer.close()

    def _scalars_only(self, *arguments: Any, **named: Any) -> NoReturn:
        raise NotImplementedError("event files of uno_jax support scalars only")

    write_summaries = write_images = write_videos = write_audios = _scalars_only
    write_texts = write_histograms = write_hparams = _scalars_only


def open_event_file(directory: Path) -> MetricWriter:
    """Opens a new event file in `directory`, written by a background thread."""
    return AsyncWriter(EventFileWriter(directory))
