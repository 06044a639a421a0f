"""What the compiler says of a program, kept between the starts of a command.

JAX's compilation cache is of no use for a slice that is not there: its programs can be written, but not loaded again.
A plan needs no program, only its text and its memory.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import hashlib
import json
import os
import resource
import sys
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from uno_jax.planning.memory import is_exhausted

_MEMORY_FIELDS = (
    "generated_code_size_in_bytes",
    "peak_memory_in_bytes",
    "argument_size_in_bytes",
    "temp_size_in_bytes",
    "host_argument_size_in_bytes",
    "host_temp_size_in_bytes",
)


@dataclass(frozen=True)
class CompilerReport:
    """Of one program."""

    seconds: float
    """That compiling took, when it was done."""
    host_memory: int
    """The most bytes of the host's memory that the process had had by then."""
    refusal: str
    """Why the program does not fit into a chip's memory; empty if it compiled, and what follows is empty if not."""
    memory: Mapping[str, int]
    """Fields of `memory_analysis()`, in bytes."""
    text: str
    """The compiled module's."""


def compile_once(lowered: Any, mesh: Mesh, directory: Path | None) -> CompilerReport:
    """Compiles a lowered program for the devices of `mesh`, or reads what was said when an earlier start did.

    Args:
      lowered: from `jax.stages.Traced.lower`.
      mesh: the devices that it was lowered for.
      directory: where reports are kept; None to compile in any case, and keep nothing.

    Raises:
      jax.errors.JaxRuntimeError: the compiler refuses the program for another reason than memory; this is not kept.
    """
    if directory is None:
        return _compile(lowered)
    file = directory / f"{_key(lowered, mesh)}.json.gz"
    kept = _read(file)
    if kept is not None:
        return kept
    report = _compile(lowered)
    _write(file, report)
    return report


def _compile(lowered: Any) -> CompilerReport:
    start = time.monotonic()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if not is_exhausted(str(error)):
            raise
        return CompilerReport(time.monotonic() - start, _host_memory(), str(error), {}, "")
    seconds, host = time.monotonic() - start, _host_memory()
    stats = compiled.memory_analysis()
    memory = {name: getattr(stats, name) for name in _MEMORY_FIELDS}
    return CompilerReport(seconds, host, "", memory, compiled.as_text())


def _host_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _key(lowered: Any, mesh: Mesh) -> str:
    """Changes with everything that decides what the compiler says."""
    devices = list(mesh.devices.flat)
    decisive = (
        lowered.as_text(),
        jax.__version__,
        devices[0].client.platform_version,
        *map(repr, devices),
        *(os.environ.get(name, "") for name in ("XLA_FLAGS", "LIBTPU_INIT_ARGS")),
    )
    return hashlib.sha256("\0".join(decisive).encode()).hexdigest()


def _read(file: Path) -> CompilerReport | None:
    """What is kept in `file`; None if there is none, or it is damaged."""
    try:
        return CompilerReport(**json.loads(gzip.decompress(file.read_bytes())))
    except (OSError, EOFError, zlib.error, ValueError, TypeError):
        return None


def _write(file: Path, report: CompilerReport) -> None:
    """Keeps a report for the next start; that it cannot be kept is one line on stderr."""
    beside = file.with_name(f"{file.name}.partial-{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(gzip.compress(json.dumps(dataclasses.asdict(report)).encode()))
        beside.replace(file)
    except OSError as error:
        print(f"warning: what the compiler said is not kept: {error}", file=sys.stderr)
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
