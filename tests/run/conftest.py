"""A dataset and an uninterrupted run, shared by the tests of runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

from tests.helpers.tiny_run import quiet, tiny_uno, write_dataset
from uno_jax.run.run import run


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "squares")


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compiled")


@contextlib.contextmanager
def compiling_quickly(compiled: Path) -> Iterator[None]:
    """Shares a compilation cache, because the runs compile the same programs, with few optimizations."""
    settings = {
        "jax_compilation_cache_dir": str(compiled),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_disable_most_optimizations": True,
    }
    before = {name: jax.config.values[name] for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture(scope="module", autouse=True)
def compiled_once(compiled: Path) -> Iterator[None]:
    with compiling_quickly(compiled):
        yield


@pytest.fixture(scope="session")
def unbroken(dataset: Path, compiled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Workdir of a run of six steps, which no test changes."""
    workdir = tmp_path_factory.mktemp("unbroken")
    with compiling_quickly(compiled):  # a fixture of a session is made before those of a module
        assert run(tiny_uno(dataset), workdir, console=quiet())
    return workdir
