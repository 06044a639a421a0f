"""The cache of compiler reports: an equal program is compiled only once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from uno_jax.planning.compiler import CompilerReport, compile_once

MESH = Mesh(np.array(jax.devices()[:1]), ("data",))
COMPILED = "/jax/core/compile/backend_compile_duration"


@pytest.fixture
def compilations() -> Iterator[list[str]]:
    """One entry for each compilation so far."""
    done: list[str] = []

    def listen(event: str, seconds: float, **details: object) -> None:
        if event == COMPILED:
            done.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield done
    jax.monitoring.unregister_event_duration_listener(listen)


def report_of(factor: float, directory: Path | None) -> CompilerReport:
    lowered = jax.jit(lambda x: x @ x * factor).trace(jax.ShapeDtypeStruct((8, 8), jnp.float32)).lower()
    return compile_once(lowered, MESH, directory)


def test_an_equal_program_is_compiled_once(tmp_path, compilations):
    first = report_of(2.0, tmp_path)
    assert len(compilations) == 1
    assert report_of(2.0, tmp_path) == first
    assert len(compilations) == 1


def test_another_program_is_compiled(tmp_path, compilations):
    report_of(2.0, tmp_path)
    report_of(3.0, tmp_path)
    assert len(compilations) == 2


def test_other_compiler_flags_compile_again(tmp_path, compilations, monkeypatch):
    report_of(2.0, tmp_path)
    monkeypatch.setenv("LIBTPU_INIT_ARGS", "--xla_tpu_scoped_vmem_limit_kib=65536")
    report_of(2.0, tmp_path)
    assert len(compilations) == 2


def test_without_a_directory_every_program_is_compiled(compilations):
    report_of(2.0, None)
    report_of(2.0, None)
    assert len(compilations) == 2


def test_a_damaged_report_is_replaced(tmp_path):
    first = report_of(2.0, tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-20])
    again = report_of(2.0, tmp_path)
    assert again.memory == first.memory
    assert report_of(2.0, tmp_path) == again


def test_a_report_that_cannot_be_cached_is_a_one_line_warning(tmp_path, capfd):
    (tmp_path / "file").touch()
    assert report_of(2.0, tmp_path / "file" / "estimates").text
    (line,) = capfd.readouterr().err.splitlines()
    assert "not cached" in line
