"""Runs of a study."""

from __future__ import annotations

import dataclasses
import itertools
import time
from pathlib import Path
from typing import Any

import rich.console

from uno_jax.data.pipeline import make_batches
from uno_jax.interop.source import find_source
from uno_jax.run.config import RunConfig, run_layout
from uno_jax.run.pictures import make_generate_pictures
from uno_jax.run.run import run
from uno_jax.training.metrics import read_metrics

_BATCHES_TIMED = 20


def train(config: RunConfig, folder: Path) -> dict[str, Any] | None:
    """Trains a run in `folder/run`, with what it prints in `folder/log.txt`.

    Returns:
      Its speed, or None if a signal stopped it.
    """
    with (folder / "log.txt").open("a") as file:
        console = rich.console.Console(file=file, width=120)
        finished = run(config, folder / "run", make_generate_pictures=make_generate_pictures, console=console)
    return speed(config, folder / "run") if finished else None


def speed(config: RunConfig, workdir: Path) -> dict[str, Any]:
    """Returns how fast a finished run was, and the share of a step's time that making its batch takes.

    The pipeline works beside the step, in one thread or in `data.workers` processes. While its share is well below 1,
    the step does not wait for it.
    """
    lines = [line for line in read_metrics(workdir / "metrics.jsonl") if "seconds_per_step" in line]
    last = lines[-1] if lines else {}
    seconds = float(last.get("seconds_per_step", 0))
    batch = _seconds_per_batch(config, workdir) / max(config.data.workers, 1)
    return {
        "steps": config.steps,
        "seconds_per_step": seconds,
        "images_per_second": float(last.get("images_per_second", 0)),
        "seconds_per_batch": batch,
        "pipeline_share": batch / seconds if seconds else None,
    }


def _seconds_per_batch(config: RunConfig, workdir: Path) -> float:
    """Measures how much time of a core the pipeline takes for a batch."""
    data = dataclasses.replace(config.data, prefetch=0, workers=0)
    batches = make_batches(data, run_layout(config), find_source(workdir).tokenizer())
    try:
        next(batches)  # the first one opens files and fills the packer
        start = time.process_time()
        counted = sum(1 for _ in itertools.islice(batches, _BATCHES_TIMED))
        return (time.process_time() - start) / max(counted, 1)
    finally:
        batches.close()
