"""Non-finite losses and gradients stop the run, or are skipped and counted."""

from __future__ import annotations

import dataclasses
import json
import shutil
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
from uno_jax.training.checkpoint_folders import find_checkpoint, read_data_state
from uno_jax.training.metrics import read_metrics


def poisoned(dataset: Path, **changes: Any) -> RunConfig:
    """Returns a config whose losses are infinite in float32 from the first step."""
    nothing_else = {"evaluation.records": 0, "objective.balance.every": 0}
    return tiny_uno(dataset, **{"objective.flow_weight": 1e300, **nothing_else, **changes})


@pytest.fixture(scope="module")
def stopped(dataset, tmp_path_factory) -> tuple[Path, str]:
    """Workdir of a run that its first loss stopped, which no test changes, and the error."""
    workdir = tmp_path_factory.mktemp("stopped")
    with pytest.raises(FloatingPointError) as error:
        run(poisoned(dataset), workdir, console=quiet())
    return workdir, str(error.value)


def test_a_non_finite_loss_stops_the_run_with_step_losses_and_samples(stopped):
    workdir, error = stopped
    assert error.startswith("step 1: the loss or gradient is not finite")
    assert "row 0: train_" in error
    assert find_checkpoint(workdir).name == "0"


@pytest.mark.slow
def test_too_many_skipped_batches_end_the_run_and_save_nothing(dataset, tmp_path):
    limited = {"optimizer.nonfinite": "skip", "limits.max_consecutive_skips": 3, "checkpoint.every": 1}
    console = quiet()
    with pytest.raises(FloatingPointError, match="3 batches in a row were skipped, .* there is no checkpoint"):
        run(poisoned(dataset, **limited), tmp_path, console=console)
    assert find_checkpoint(tmp_path) is None
    assert "warning: the batch of step 2 was skipped: the loss or gradient is not finite" in console.file.getvalue()
    assert json.loads((tmp_path / "bad_step_000003.json").read_text())["step"] == 3


@pytest.mark.slow
def test_a_run_goes_back_at_a_spike_and_on_with_the_data_after_it(dataset, tmp_path):
    """The loss of step 5 is twice the median of the four before. The newest checkpoint is of step 3."""
    console = quiet()
    plain = {"evaluation.records": 0, "objective.balance.every": 0, "checkpoint.every": 3}
    spike = {"limits.spike": "rewind", "limits.spike_factor": 1.8, "limits.spike_window": 4, "limits.max_rewinds": 1}
    assert run(tiny_uno(dataset, **plain, steps=8), tmp_path / "plain", console=quiet())
    assert run(tiny_uno(dataset, **plain, **spike, steps=6), tmp_path / "rewound", console=console)
    assert console.file.getvalue().count("Going back to the checkpoint of step 3 and on with the data after this") == 1
    positions = [read_data_state(tmp_path / name) for name in ("plain/checkpoints/8", "rewound/checkpoints/6")]
    assert positions[0] == positions[1]
    losses = {
        name: [line["loss"] for line in read_metrics(tmp_path / name / "metrics.jsonl")]
        for name in ("plain", "rewound")
    }
    assert losses["rewound"][:3] == losses["plain"][:3]
    # The batch of step 6 is that of the plain run's step 6, two updates earlier.
    assert losses["rewound"][3] == pytest.approx(losses["plain"][5], rel=0.1)
    assert len(losses["rewound"]) == 6


def test_after_a_non_finite_stop_the_same_batch_is_repeated(dataset, unbroken, stopped, tmp_path):
    workdir = shutil.copytree(stopped[0], tmp_path / "run")
    healed = dataclasses.replace(tiny_uno(dataset), evaluation=poisoned(dataset).evaluation)
    assert run(healed, workdir, console=quiet(), accept_changes=True)
    for name, leaf in saved(unbroken, 6, "params").items():
        np.testing.assert_array_equal(leaf, saved(workdir, 6, "params")[name], err_msg=name)


def test_non_finite_batches_are_skipped_and_counted_if_the_config_says_so(dataset, tmp_path):
    assert run(poisoned(dataset, **{"optimizer.nonfinite": "skip", "steps": 2}), tmp_path, console=quiet())
    assert read_metrics(tmp_path / "metrics.jsonl")[-1]["skipped"] == 2
    fresh = start_params(tiny_uno(dataset), make_mesh(tiny_uno(dataset).mesh)).params
    kept = saved(tmp_path, 2, "params")
    for path, leaf in jax.tree_util.tree_leaves_with_path(fresh):
        np.testing.assert_array_equal(kept[jax.tree_util.keystr(path)], leaf)
