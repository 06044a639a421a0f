"""Non-finite losses and gradients stop the run, or are skipped and counted."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from tests.helpers.tiny_run import (
    quiet,
    saved,
    tiny_uno,
)
from uno_jax.parallel.mesh import make_mesh
from uno_jax.run.config import RunConfig
from uno_jax.run.run import run
from uno_jax.run.start import start_params
from uno_jax.training.checkpoints import find_checkpoint
from uno_jax.training.metrics import read_metrics


def poisoned(dataset: Path, **changes: Any) -> RunConfig:
    """Returns a config whose losses are infinite from the first step."""
    nothing_else = {"evaluation.records": 0, "objective.balance.every": 0}
    return tiny_uno(dataset, **{"objective.flow_weight": float("inf"), **nothing_else, **changes})


def test_a_non_finite_loss_stops_the_run_with_step_losses_and_samples(dataset, tmp_path):
    with pytest.raises(FloatingPointError) as error:
        run(poisoned(dataset), tmp_path, console=quiet())
    assert str(error.value).startswith("step 1: the loss or gradient is not finite")
    assert "row 0: train_" in str(error.value)
    assert find_checkpoint(tmp_path).name == "0"


def test_after_a_non_finite_stop_the_same_batch_is_repeated(dataset, unbroken, tmp_path):
    with pytest.raises(FloatingPointError):
        run(poisoned(dataset), tmp_path, console=quiet())
    healed = dataclasses.replace(tiny_uno(dataset), evaluation=poisoned(dataset).evaluation)
    assert run(healed, tmp_path, console=quiet(), accept_changes=True)
    for name, leaf in saved(unbroken, 6, "params").items():
        np.testing.assert_array_equal(leaf, saved(tmp_path, 6, "params")[name], err_msg=name)


def test_non_finite_batches_are_skipped_and_counted_if_the_config_says_so(dataset, tmp_path):
    assert run(poisoned(dataset, **{"optimizer.nonfinite": "skip", "steps": 2}), tmp_path, console=quiet())
    assert read_metrics(tmp_path / "metrics.jsonl")[-1]["skipped"] == 2
    fresh = start_params(tiny_uno(dataset), make_mesh(tiny_uno(dataset).mesh)).params
    kept = saved(tmp_path, 2, "params")
    for path, leaf in jax.tree_util.tree_leaves_with_path(fresh):
        np.testing.assert_array_equal(kept[jax.tree_util.keystr(path)], leaf)
