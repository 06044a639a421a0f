"""Benchmarks: the keys of their reports, and running them as scripts."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys

import pytest

from tests.helpers.paths import ROOT

BENCHMARKS = ROOT / "benchmarks"
BASELINE = {  # keys of the `sample` workload of the PyTorch program
    *("median_s", "min_s", "max_s", "parameters", "trainable", "tokens", "result"),
    *("mode", "repeat", "warmup", "threads", "seed", "batch", "torch"),
}
OWN = {"compile_seconds", "default_allocator", "jax"}


def test_the_sampling_benchmark_reports_the_keys_of_the_baseline_and_the_compile_time(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)  # for a script its own folder is on the path
    benchmark = importlib.import_module("benchmarks.sample")
    args = benchmark.options().parse_args(["--batch=4", "--threads=1", "--seed=3"])
    line = benchmark.report(args, [3.0, 1.0, 2.0], compile_seconds=9.0, parameters=7, result=0.5)
    assert line.keys() == BASELINE | OWN
    assert (line["median_s"], line["min_s"], line["max_s"], line["compile_seconds"]) == (2.0, 1.0, 3.0, 9.0)
    assert (line["mode"], line["batch"], line["threads"], line["seed"]) == ("sample", 4, 1, 3)
    assert line["tokens"] == {
        "prompt": 32,
        "latent": 256,
        "delimiter": 2,
        "images": 4,
        "steps": 24,
        "passes_per_step": 2,
    }


def test_the_comparison_with_pytorch_reports_medians_and_the_ratios_of_single_rounds(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    benchmark = importlib.import_module("benchmarks.beside_torch")
    line = benchmark.report("flow", [1.0, 3.0, 2.0], [4.0, 4.0, 8.0], threads=2)
    assert (line["jax_s"], line["torch_s"], line["ratio"]) == (2.0, 4.0, 0.5)
    assert (line["lowest_ratio"], line["highest_ratio"], line["rounds"]) == (0.25, 0.75, 3)
    assert benchmark.table([line]).endswith("| `flow` | 2.000 s | 4.000 s | 0.50 | 0.25 to 0.75 |")


SCRIPTS = sorted(file.stem for file in BENCHMARKS.glob("*.py") if "__main__" in file.read_text())


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_benchmark_runs_as_a_script(name):
    settings = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, f"benchmarks/{name}.py", "--help"]
    subprocess.run(command, cwd=BENCHMARKS.parent, env=settings, check=True, stdout=subprocess.DEVNULL)
