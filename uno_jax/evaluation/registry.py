"""The benchmarks by name."""

from __future__ import annotations

from uno_jax.evaluation.benchmark import Benchmark
from uno_jax.evaluation.benchmarks.geneval import GENEVAL, GENEVAL_LONG

BENCHMARKS: dict[str, Benchmark] = {benchmark.name: benchmark for benchmark in (GENEVAL, GENEVAL_LONG)}
