"""A run resumes where it stopped, and says when it is complete."""

from __future__ import annotations

import shutil
import time

import numpy as np
import pytest

from tests.helpers.tiny_run import (
    assert_same_run,
    finish,
    quiet,
    saved,
    start_process,
    stop_at,
    tiny_uno,
)
from uno_jax.config import ConfigError
from uno_jax.run.run import run
from uno_jax.training.checkpoint_folders import find_checkpoint


def test_a_stopped_and_resumed_run_equals_an_unbroken_one_bit_for_bit(dataset, unbroken, tmp_path):
    config = tiny_uno(dataset, **{"pictures.every": 3})
    assert not run(config, tmp_path, make_generate_pictures=stop_at(3), console=quiet())
    assert find_checkpoint(tmp_path).name == "3"
    assert run(tiny_uno(dataset), tmp_path, console=quiet())
    assert_same_run(tmp_path, unbroken, 6)


@pytest.mark.slow
def test_a_killed_and_resumed_run_equals_an_unbroken_one_bit_for_bit(dataset, unbroken, tmp_path):
    workdir = tmp_path / "run"
    for wanted in (2, 4):
        process = start_process(tiny_uno(dataset), workdir)
        while process.poll() is None and not (workdir / "checkpoints" / str(wanted)).is_dir():
            time.sleep(0.01)
        process.kill()
        process.communicate()
        assert find_checkpoint(workdir) is not None
    finish(start_process(tiny_uno(dataset), workdir))
    assert_same_run(workdir, unbroken, 6)


@pytest.mark.slow
def test_a_run_on_eight_devices_resumes_on_one_with_the_same_result(dataset, tmp_path):
    eight_rows = {"data.rows": 8, "data.virtual_shards": 8, "optimizer.learning_rate": 1e-4}
    for name, devices in (("eight", 8), ("one", 1)):
        config = tiny_uno(dataset, **eight_rows, steps=2)
        xla_flags = f"--xla_force_host_platform_device_count={devices}"
        finish(start_process(config, tmp_path / name, XLA_FLAGS=xla_flags))
        assert run(tiny_uno(dataset, **eight_rows, steps=4), tmp_path / name, console=quiet())
    eight, one = (saved(tmp_path / name, 4, "params") for name in ("eight", "one"))
    for name in one:
        np.testing.assert_allclose(eight[name], one[name], atol=2e-5, err_msg=name)


def test_a_complete_run_says_so_and_changes_nothing(dataset, unbroken):
    console = quiet()
    before = (unbroken / "metrics.jsonl").read_bytes()
    assert run(tiny_uno(dataset), unbroken, console=console)
    assert "complete" in console.file.getvalue()
    assert "Held-out losses" in console.file.getvalue()
    assert (unbroken / "metrics.jsonl").read_bytes() == before


def test_a_data_position_of_other_shards_is_rejected(dataset, unbroken, tmp_path):
    shutil.copytree(unbroken, tmp_path, dirs_exist_ok=True)
    other = tiny_uno(dataset, **{"data.virtual_shards": 1, "steps": 8})
    with pytest.raises(ConfigError, match=r"config\.data\.virtual_shards is 1, in the checkpoint 2"):
        run(other, tmp_path, console=quiet())
    with pytest.raises(ConfigError, match=r"Keep data\.virtual_shards as it was"):
        run(other, tmp_path, console=quiet(), accept_changes=True)


@pytest.mark.slow
def test_ema_in_host_memory_equals_ema_in_device_memory_also_after_a_restart(dataset, unbroken, tmp_path):
    for steps in (4, 6):
        run(tiny_uno(dataset, **{"optimizer.ema_memory": "host", "steps": steps}), tmp_path, console=quiet())
    ema, expected = saved(tmp_path, 6, "ema"), saved(unbroken, 6, "ema")
    assert ema.keys() == expected.keys()
    for name in ema:
        np.testing.assert_allclose(ema[name], expected[name], rtol=1e-6, atol=1e-7, err_msg=name)
