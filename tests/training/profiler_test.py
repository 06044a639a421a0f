"""Profiles contain the configured steps and can be read."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.profiler import ProfileData

from uno_jax.training.profiler import ProfileConfig, Profiler


def train(config: ProfileConfig, directory: Path, steps: int) -> jax.Array:
    """Returns the result of `steps` steps, some of them profiled."""
    profiler = Profiler(config, directory)
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


def test_nothing_is_written_by_default(tmp_path):
    train(ProfileConfig(), tmp_path / "profile", 8)
    assert not (tmp_path / "profile").exists()
