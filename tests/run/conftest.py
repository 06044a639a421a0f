"""A dataset and an uninterrupted run, shared by the tests of runs."""

from __future__ import annotations

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


@pytest.fixture(scope="module", autouse=True)
def compiled_once(compiled: Path) -> Iterator[None]:
    """Shares a compilation cache, because the runs compile the same programs."""
    before = jax.config.values
    jax.config.update("jax_compilation_cache_dir", str(compiled))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    yield
    for name in ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs"):
        jax.config.update(name, before[name])


@pytest.fixture(scope="session")
def unbroken(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Workdir of a run of six steps, which no test changes."""
    workdir = tmp_path_factory.mktemp("unbroken")
    assert run(tiny_uno(dataset), workdir, console=quiet())
    return workdir
