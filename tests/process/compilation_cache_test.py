"""The persistent compilation cache: its directory, and that a second start of a command compiles nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT
from tests.helpers.small_public import write_public
from tests.helpers.tiny_run import metrics_without_speeds, write_config, write_dataset
from uno_jax.process.compilation_cache import cache_directory

DIRECTORY = "JAX_COMPILATION_CACHE_DIR"


@pytest.fixture
def no_settings(monkeypatch) -> None:
    for name in (DIRECTORY, "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)


def test_the_default_is_in_the_cache_directory_of_the_user(tmp_path, monkeypatch, no_settings):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_directory() == tmp_path / ".cache" / "uno_jax" / "compilation"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    assert cache_directory() == tmp_path / "elsewhere" / "uno_jax" / "compilation"
    assert cache_directory().is_dir()


def test_the_variable_of_jax_sets_the_directory(tmp_path, monkeypatch):
    monkeypatch.setenv(DIRECTORY, str(tmp_path / "programs"))
    assert cache_directory() == tmp_path / "programs"


def test_an_empty_variable_turns_the_cache_off(monkeypatch):
    monkeypatch.setenv(DIRECTORY, "")
    assert cache_directory() is None


def test_a_directory_that_is_not_writable_gives_a_warning_and_no_cache(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setenv(DIRECTORY, str(tmp_path / "file" / "programs"))
    assert cache_directory() is None
    (line,) = capsys.readouterr().err.splitlines()
    assert str(tmp_path / "file" / "programs") in line
    assert DIRECTORY in line


COUNTED = """
import atexit, collections, json, runpy, sys
import jax
counts = collections.Counter()
jax.monitoring.register_event_listener(lambda event, **details: counts.update([event.rsplit("/", 1)[-1]]))
out, module, *sys.argv[1:] = sys.argv[1:]
atexit.register(lambda: open(out, "w").write(json.dumps(counts)))
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""
"""Runs a command, and writes the number of requests to JAX's cache and of hits."""


def counted(command: str, *arguments: str, cwd: Path, cache: Path) -> dict[str, int]:
    """Counts JAX's monitoring events in one run of a command."""
    out = cwd / "counts.json"
    environment = os.environ | {DIRECTORY: str(cache), "PYTHONPATH": str(ROOT), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    start = [sys.executable, "-c", COUNTED, str(out), command, *arguments]
    done = subprocess.run(start, cwd=cwd, env=environment, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stderr
    assert "compilation cache" not in done.stderr
    return json.loads(out.read_text())


def assert_second_compiled_nothing(first: dict[str, int], second: dict[str, int]) -> None:
    assert first["cache_misses"] > 0
    assert second["compile_requests_use_cache"] == first["compile_requests_use_cache"]
    assert second["cache_hits"] == second["compile_requests_use_cache"]


@pytest.mark.slow
def test_a_second_run_compiles_nothing_and_has_the_same_losses_bit_for_bit(tmp_path):
    write_dataset(tmp_path / "squares")
    changes = {"steps": 2, "evaluation.every": 2, "checkpoint.every": 2}
    write_config(tmp_path / "tiny.py", tmp_path / "squares", changes)

    def train(workdir: str, cache: Path) -> dict[str, int]:
        return counted("uno_jax.train", "--config=tiny.py", f"--workdir={workdir}", cwd=tmp_path, cache=cache)

    first, second = train("first", tmp_path / "programs"), train("second", tmp_path / "programs")
    assert_second_compiled_nothing(first, second)
    first, second = (metrics_without_speeds(tmp_path / workdir) for workdir in ("first", "second"))
    assert first == second != []


def test_a_second_start_of_the_sampler_compiles_nothing_and_gives_the_same_images(tmp_path):
    write_public(tmp_path / "model")

    def sample(out: str) -> dict[str, int]:
        options = ("--checkpoint=model", "--prompt=a red heart", "--timesteps=3", "--size=4x4", f"--out={out}")
        return counted("uno_jax.sample", *options, cwd=tmp_path, cache=tmp_path / "programs")

    assert_second_compiled_nothing(sample("first"), sample("second"))
    first, second = (sorted((tmp_path / out).glob("*.png")) for out in ("first", "second"))
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second] != []
