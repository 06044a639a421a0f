"""Speed on a CPU beside PyTorch: both programs in turn, in processes of their own.

    python benchmarks/beside_torch.py --torch=ENV/bin/python --baseline=torch_baseline.py [--threads=2]

`--torch` is a Python with PyTorch, and `--baseline` the program whose workloads `train_step.py` and `sample.py` repeat.
Each round runs one after the other, with memory kept by both allocators. Prints a JSON line a workload, then a table:
medians over all rounds, the ratio of the medians, and the smallest and largest ratio of a round.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
WORKLOADS = ("flow", "uno", "sample")
KEPT = "4000000000"  # bytes that glibc keeps instead of returning them to the system


def seconds(command: Sequence[str], threads: int, **environment: str) -> float:
    """Runs a benchmark on the first `threads` cores that this process may use, and returns its median seconds."""
    cores = sorted(os.sched_getaffinity(0))[:threads]
    done = subprocess.run(
        command,
        env={**os.environ, "OMP_NUM_THREADS": str(threads), "NPROC": str(threads), **environment},
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return float(json.loads(done.stdout)["median_s"])


def ours(workload: str, args: argparse.Namespace) -> float:
    """Median seconds of this project."""
    script = ["sample.py", f"--threads={args.threads}"] if workload == "sample" else ["train_step.py"]
    chosen = [] if workload == "sample" else [f"--workload={workload}"]
    command = [sys.executable, str(FOLDER / script[0]), *script[1:], *chosen, f"--repeat={args.repeat}"]
    return seconds(command, args.threads, JAX_PLATFORMS="cpu")


def theirs(workload: str, args: argparse.Namespace) -> float:
    """Median seconds of the PyTorch program."""
    command = [args.torch, args.baseline, workload, f"--threads={args.threads}", f"--repeat={args.repeat}"]
    return seconds(command, args.threads, MALLOC_TRIM_THRESHOLD_=KEPT, MALLOC_MMAP_THRESHOLD_=KEPT)


def report(workload: str, jax: Sequence[float], torch: Sequence[float], threads: int) -> dict[str, Any]:
    """Compares the medians of all rounds, and the two programs of each round."""
    ratios = [a / b for a, b in zip(jax, torch, strict=True)]
    medians = statistics.median(jax), statistics.median(torch)
    return {
        "workload": workload,
        "threads": threads,
        "jax_s": medians[0],
        "torch_s": medians[1],
        "ratio": medians[0] / medians[1],
        "lowest_ratio": min(ratios),
        "highest_ratio": max(ratios),
        "rounds": len(ratios),
    }


def table(reports: Sequence[Mapping[str, Any]]) -> str:
    """Markdown."""
    lines = ["| workload | this project | PyTorch | ratio | of single rounds |", "|---|---|---|---|---|"]
    for x in reports:
        times = f"{x['jax_s']:.3f} s | {x['torch_s']:.3f} s | {x['ratio']:.2f}"
        lines.append(f"| `{x['workload']}` | {times} | {x['lowest_ratio']:.2f} to {x['highest_ratio']:.2f} |")
    return "\n".join(lines)


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch", required=True, help="a Python with PyTorch")
    parser.add_argument("--baseline", required=True, help="the PyTorch program")
    parser.add_argument("--workload", choices=WORKLOADS, help="only this one")
    parser.add_argument("--threads", type=int, default=2, help="cores, and threads of both programs")
    parser.add_argument("--rounds", type=int, default=5, help="processes of each program and workload")
    parser.add_argument("--repeat", type=int, default=7, help="timed runs in a process, of which the median counts")
    return parser


def main() -> None:
    args = options().parse_args()
    reports = []
    for workload in (args.workload,) if args.workload else WORKLOADS:
        rounds = [(ours(workload, args), theirs(workload, args)) for _ in range(args.rounds)]
        reports.append(report(workload, *zip(*rounds, strict=True), args.threads))
        print(json.dumps(reports[-1]), flush=True)
    print(f"\n{table(reports)}")


if __name__ == "__main__":
    main()
