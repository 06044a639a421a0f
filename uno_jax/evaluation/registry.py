"""The benchmarks by name."""

from __future__ import annotations

from uno_jax.evaluation.benchmark import Benchmark
from uno_jax.evaluation.benchmarks.dpg import DPG
from uno_jax.evaluation.benchmarks.gedit import GEDIT_CN, GEDIT_EN
from uno_jax.evaluation.benchmarks.geneval import GENEVAL, GENEVAL_LONG
from uno_jax.evaluation.benchmarks.geneval2 import GENEVAL2
from uno_jax.evaluation.benchmarks.imgedit import IMGEDIT
from uno_jax.evaluation.benchmarks.kris import KRIS
from uno_jax.evaluation.benchmarks.rise import RISE
from uno_jax.evaluation.benchmarks.unigen import UNIGEN
from uno_jax.evaluation.benchmarks.wise import WISE, WISE_VERIFIED

BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        *(GENEVAL, GENEVAL_LONG),
        GENEVAL2,
        DPG,
        *UNIGEN,
        *(WISE, WISE_VERIFIED),
        *(GEDIT_EN, GEDIT_CN),
        IMGEDIT,
        KRIS,
        RISE,
    )
}
