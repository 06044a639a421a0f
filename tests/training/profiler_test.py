"""Profiles contain the configured steps and can be read."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.profiler import ProfileData

from tests.helpers.paths import ROOT
from uno_jax.training.profiler import ProfileConfig, Profiler


def train(config: ProfileConfig, directory: Path, steps: int, say: Callable[[str], None] = print) -> jax.Array:
    """Returns the result of `steps` steps, some of them profiled."""
    profiler = Profiler(config, directory, say)
    step, x = profiler.around(jax.jit(lambda x: jnp.tanh(x @ x))), jnp.eye(8)
    for _ in range(steps):
        x = step(x)
    profiler.close()
    return x


def profiled_steps(directory: Path) -> list[int]:
    """Returns the step numbers in the profile."""
    [file] = directory.glob("plugins/profile/*/*.xplane.pb")
    events = [
        event for plane in ProfileData.from_file(str(file)).planes for line in plane.lines for event in line.events
    ]
    return sorted(int(dict(event.stats)["step_num"]) for event in events if event.name == "train")


@pytest.mark.parametrize(("steps", "expected"), [(6, [2, 3, 4]), (4, [2, 3])], ids=["whole", "the run ends within"])
def test_a_profile_holds_the_requested_steps(tmp_path, steps, expected):
    train(ProfileConfig(steps=3, after=2), tmp_path, steps)
    assert profiled_steps(tmp_path) == expected


def test_a_profile_changes_no_result(tmp_path):
    assert (train(ProfileConfig(steps=1, after=0), tmp_path, 3) == train(ProfileConfig(), tmp_path, 3)).all()


def test_a_folder_that_cannot_be_made_is_a_warning(tmp_path):
    (tmp_path / "file").touch()
    said: list[str] = []
    result = train(ProfileConfig(steps=1, after=0), tmp_path / "file" / "profile", 3, said.append)
    assert (result == train(ProfileConfig(), tmp_path, 3)).all()
    folder = tmp_path / "file" / "profile"
    assert said == [f"warning: {folder}: the profile cannot be written (Not a directory). Training goes on."]


# In a process of its own, because JAX's profiler does not recover from it.
FOLDER_VANISHES = """
import sys, jax, jax.numpy as jnp
from pathlib import Path
from uno_jax.training.profiler import ProfileConfig, Profiler
folder = Path(sys.argv[1])
profiler = Profiler(ProfileConfig(steps=2, after=0), folder)
step = profiler.around(jax.jit(lambda x: x + 1))
step(jnp.ones(()))
folder.rmdir()
folder.touch()
print("then", step(jnp.ones(())), step(jnp.ones(())))
"""


def test_a_profile_that_cannot_be_written_is_a_warning(tmp_path):
    command = [sys.executable, "-c", FOLDER_VANISHES, str(tmp_path / "profile")]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert f"warning: {tmp_path / 'profile'}: the profile cannot be written (" in ended.stdout
    assert "Training goes on.\nthen 2.0 2.0" in ended.stdout


def test_nothing_is_written_by_default(tmp_path):
    train(ProfileConfig(), tmp_path / "profile", 8)
    assert not (tmp_path / "profile").exists()
