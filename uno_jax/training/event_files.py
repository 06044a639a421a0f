"""TensorBoard event files behind clu's `MetricWriter` interface, without TensorFlow."""

from __future__ import annotations

import importlib.util
import os
import socket
import struct
import sys
import time
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from tensorboard.summary import Output, Writer
from tensorboard.util import tensor_util

from uno_jax.process.files import AppendedFile, atomic_file

_TENSORFLOW_WRITER = "clu.metric_writers.summary_writer"
if importlib.util.find_spec("tensorflow") is None and _TENSORFLOW_WRITER not in sys.modules:
    # clu always imports this writer, and fails if TensorFlow is missing.
    sys.modules[_TENSORFLOW_WRITER] = types.ModuleType(_TENSORFLOW_WRITER)
    sys.modules[_TENSORFLOW_WRITER].SummaryWriter = None  # type: ignore[attr-defined]
from clu.metric_writers import MetricWriter  # noqa: E402

_FILES = "events.out.tfevents.*"
# A record of an event file: length, checksum of the length, content, checksum of the content.
_LENGTH, _CHECKSUM = struct.Struct("<Q"), struct.Struct("<I")


class EventFileWriter(MetricWriter):
    """Writes scalars to an event file. Other kinds of summaries raise NotImplementedError."""

    def __init__(self, directory: Path):
        """Opens a new event file in `directory`, which is created if needed."""
        self._writer = Writer(_EventFile(directory))

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Adds the scalars of `step`, rounded to float32.

        Raises:
          OSError: they cannot be written yet. The next call writes them as well.
        """
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)
        self.flush()

    def flush(self) -> None:
        """Writes what is not in the file yet."""
        self._writer.flush()

    def close(self) -> None:
        """Flushes and closes the file."""
        self._writer.close()

    def _scalars_only(self, *arguments: Any, **named: Any) -> NoReturn:
        raise NotImplementedError("event files of uno_jax support scalars only")

    write_summaries = write_images = write_videos = write_audios = _scalars_only
    write_texts = write_histograms = write_hparams = _scalars_only


class _EventFile(Output):
    """Output of TensorBoard's `Writer` without its thread, which ends with a traceback at the first full disk."""

    def __init__(self, directory: Path):
        directory.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time():017.6f}.{socket.gethostname()}.{os.getpid()}"
        self._file = AppendedFile(directory / name)
        self._records = [_record(event_pb2.Event(wall_time=time.time(), file_version="brain.Event:2"))]
        self.flush()

    def emit_scalar(
        self,
        *,
        plugin_name: str,
        tag: str,
        data: np.float32,
        step: np.int64,
        wall_time: float,
        tag_metadata: bytes | None = None,
        description: str | None = None,
    ) -> None:
        plugin = summary_pb2.SummaryMetadata.PluginData(plugin_name=plugin_name, content=tag_metadata)
        metadata = summary_pb2.SummaryMetadata(
            plugin_data=plugin, summary_description=description, data_class=summary_pb2.DATA_CLASS_SCALAR
        )
        event = event_pb2.Event(wall_time=wall_time, step=step)
        event.summary.value.add(tag=tag, tensor=tensor_util.make_tensor_proto(data), metadata=metadata)
        self._records.append(_record(event))

    def flush(self) -> None:
        entry, self._records = b"".join(self._records), []
        self._file.write(entry)

    def close(self) -> None:
        self._file.close()


def drop_later_events(directory: Path, step: int) -> None:
    """Removes the events after `step` from the event files in a folder: a resumed run writes them again.

    A new run (`step` 0) removes all. A file's damaged end is removed with them.
    """
    for file in sorted(directory.glob(_FILES)):
        if step == 0:
            file.unlink()
            continue
        kept = [record for record, at in _records(file.read_bytes()) if at <= step]
        if sum(map(len, kept)) < file.stat().st_size:
            with atomic_file(file) as temporary:
                temporary.write_bytes(b"".join(kept))


def _records(content: bytes) -> Iterator[tuple[bytes, int]]:
    """Yields every whole record of an event file, and the step of its event."""
    start, frame = 0, _LENGTH.size + _CHECKSUM.size
    while start + frame <= len(content):
        (length,) = _LENGTH.unpack_from(content, start)
        end = start + frame + length + _CHECKSUM.size
        if end > len(content):
            return
        try:
            event = event_pb2.Event.FromString(content[start + frame : end - _CHECKSUM.size])
        except Exception:  # protobuf has another exception in every implementation
            return
        yield content[start:end], event.step
        start = end


def _record(event: event_pb2.Event) -> bytes:
    content: bytes = event.SerializeToString()
    length = _LENGTH.pack(len(content))
    return length + _CHECKSUM.pack(masked_crc32c(length)) + content + _CHECKSUM.pack(masked_crc32c(content))
