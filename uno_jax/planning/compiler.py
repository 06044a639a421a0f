"""Compiler reports of programs, cached between runs of a command.

JAX's compilation cache does not work for an abstract slice: a compiled program can be written but not loaded without
the devices. An estimate only needs the program's text and memory statistics.
"""

from __future__ import annotations

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
from uno_jax.process.files import atomic_file
from uno_jax.process.json_reader import parse_json

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
    """The compiler's output for one program."""

    seconds: float
    """Time that the compilation took."""
    host_memory: int
    """Peak host memory of the process after the compilation, in bytes."""
    refusal: str
    """Why the program does not fit into a chip's memory, or empty if it compiled."""
    memory: Mapping[str, int]
    """Fields of `memory_analysis()`, in bytes. Empty if the program did not compile."""
    text: str
    """Text of the compiled module. Empty if the program did not compile."""


def compile_once(lowered: Any, mesh: Mesh, directory: Path | None) -> CompilerReport:
    """Compiles a lowered program, or reads the cached report of an earlier compilation.

    Args:
      lowered: the result of `jax.stages.Traced.lower`.
      mesh: the mesh that the program was lowered for.
      directory: the cache directory. With None the program is always compiled and nothing is cached.

    Raises:
      jax.errors.JaxRuntimeError: the compilation failed for a reason other than memory. This is not cached.
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
    """Hash of everything that influences the compiler's output."""
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
    """Reads a cached report. Returns None if the file is missing or damaged."""
    try:
        return CompilerReport(**parse_json(gzip.decompress(file.read_bytes())))
    except (OSError, EOFError, zlib.error, ValueError, TypeError):
        return None


def _write(file: Path, report: CompilerReport) -> None:
    """Caches a report. A failure is a one-line warning on stderr."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(file) as temporary:
            temporary.write_bytes(gzip.compress(json.dumps(dataclasses.asdict(report)).encode()))
    except OSError as error:
        print(f"warning: the compiler report is not cached: {error}", file=sys.stderr)
