"""What a command hides of what libraries say."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.helpers.paths import ROOT

# A maximum file size of 100 kB stands for a full disk.
SAVE = """
import resource, sys
from pathlib import Path
import jax.numpy as jnp
import numpy as np
from uno_jax.process.errors import CheckpointError
from uno_jax.process.logs import hide_orbax
from uno_jax.training.checkpoints import Checkpoints, save_model
from uno_jax.training.state import TrainState

hide_orbax()
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
folder = Path(sys.argv[1])
params = {f"kernel_{i}": jnp.asarray(np.random.default_rng(i).random((300, 300)), jnp.float32) for i in range(30)}
try:
    SAVING
except CheckpointError as error:
    print(error)
"""
SAVING = {
    "a model": "save_model(folder / '0', params, {}, {})",
    "a run": """checkpoints = Checkpoints(folder, 1, {})
    state = TrainState(step=jnp.zeros((), jnp.int32), trainable=params, frozen={}, opt_state=(), ema=None, anchor=None,
                       gradient_norms={}, latched=jnp.zeros((), jnp.int32), skipped=jnp.zeros((), jnp.int32))
    checkpoints.save(1, state, {})
    checkpoints.close()""",
}


@pytest.mark.parametrize("what", SAVING)
def test_writes_left_behind_by_a_failed_one_say_nothing(tmp_path, what):
    command = [sys.executable, "-c", SAVE.replace("SAVING", SAVING[what]), str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "(File too large)" in result.stdout
    assert result.stderr == ""
