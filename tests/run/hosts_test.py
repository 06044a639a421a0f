"""Runs of `python -m uno_jax.train` on several hosts, stopped and resumed on other hosts and meshes."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import numpy as np
import pytest
from absl import flags
from flax.traverse_util import flatten_dict

from tests.helpers.hosts import Ended, Hosts
from tests.helpers.tiny_run import tiny_uno, write_config, write_dataset
from uno_jax.parallel.axes import MESH_AXES
from uno_jax.parallel.mesh import make_mesh
from uno_jax.run.start import abstract_run_params, start_params
from uno_jax.training.metrics import read_metrics
from uno_jax.training.stored_trees import restore_tree

pytestmark = pytest.mark.slow

LOSSES = ("loss", "flow", "caption", "visual")
# Four virtual shards for up to four hosts. Epsilon is large, because Adam amplifies the rounding errors of gradients
# close to 0 to full updates.
CHANGES = {
    "data.rows": 8,
    "data.virtual_shards": 4,
    "optimizer.epsilon": 1e-3,
    # An autoencoder with parameters, which every host keeps on its own devices.
    "model.autoencoder.kind": "flux",
    "model.autoencoder.channel_multipliers": (1, 1, 1),
    "model.autoencoder.base_channels": 32,
    "model.autoencoder.num_residual_blocks": 1,
}


@pytest.fixture(scope="module")
def config_file(tmp_path_factory) -> Path:
    """A config of a tiny model on a tiny dataset."""
    directory = tmp_path_factory.mktemp("hosts")
    write_dataset(directory / "data")
    file = directory / "config.py"
    write_config(file, directory / "data", CHANGES)
    return file


def hosts(config_file: Path, workdir: Path, count: int, mesh: str, steps: int, *more: str) -> Hosts:
    """Starts the run on `count` hosts with eight devices in total, or one if the mesh has one device."""
    sizes = [f"--config.mesh.{axis}={size}" for axis, size in zip(MESH_AXES, mesh.split(","), strict=True)]
    arguments = ["-m", "uno_jax.train", f"--config={config_file}", f"--workdir={workdir}", f"--config.steps={steps}"]
    return Hosts([*arguments, *sizes, *more], hosts=count, devices=1 if mesh == "1,1,1,1" else 8 // count)


def assert_status(ended: list[Ended], status: int) -> None:
    assert [host.status for host in ended] == [status] * len(ended), "\n".join(host.printed for host in ended)


def stop_when_logged(running: Hosts, host: int, workdir: Path, step: int) -> list[Ended]:
    """Signals one host to stop when the step appears in the metrics."""
    deadline = time.monotonic() + 200
    while not any(line["step"] >= step for line in read_metrics(workdir / "metrics.jsonl")):
        assert time.monotonic() < deadline, "\n".join(ended.printed for ended in running.wait(1))
        assert all(process.poll() is None for process in running.processes), running.wait(1)
        time.sleep(0.05)
    running.processes[host].send_signal(signal.SIGTERM)
    return running.wait(100)


def logged(workdir: Path) -> dict[int, dict[str, float]]:
    """Returns training and held-out metrics by step."""
    lines: dict[int, dict[str, float]] = {}
    for line in read_metrics(workdir / "metrics.jsonl"):
        lines.setdefault(int(line["step"]), {}).update(line)
    return lines


def test_a_run_resumed_on_other_hosts_and_meshes_reaches_the_same_losses_and_parameters(config_file, tmp_path):
    """Four hosts start, two resume and are stopped by a signal, one finishes. The reference is a run on one device.

    Tolerances: 1e-5 for losses, 1e-4 of each leaf's total change for parameters, exact for counts of samples.
    """
    workdir, alone = tmp_path / "hosts", tmp_path / "alone"
    assert_status(hosts(config_file, workdir, 4, "1,4,2,1", 2, "--config.pictures.every=2").wait(), 0)
    running = hosts(config_file, workdir, 2, "2,2,1,2", 10_000)
    ended = stop_when_logged(running, host=1, workdir=workdir, step=3)
    assert_status(ended, 128 + signal.SIGTERM)
    stopped = max(logged(workdir))
    assert f"Stopped at step {stopped} and saved a checkpoint." in ended[0].printed
    assert "step" not in "".join(line for line in ended[1].printed.splitlines() if "Gloo" not in line)
    assert (workdir / "checkpoints" / str(stopped)).is_dir()

    last = stopped + 2
    assert_status(hosts(config_file, workdir, 1, "8,1,1,1", last).wait(), 0)
    assert_status(hosts(config_file, alone, 1, "1,1,1,1", last).wait(), 0)

    lines, expected = logged(workdir), logged(alone)
    assert set(lines) == set(expected) == set(range(last + 1))
    for step in range(1, last + 1):
        for name in LOSSES:
            if name in expected[step]:
                np.testing.assert_allclose(lines[step][name], expected[step][name], rtol=1e-5, err_msg=f"{name} {step}")
        for name in ("samples", "without_caption"):
            assert lines[step][name] == expected[step][name], (name, step)
    for name in (key for key in expected[last] if key.startswith(("held_out/", "constant/"))):
        np.testing.assert_allclose(lines[last][name], expected[last][name], rtol=1e-5, err_msg=name)

    config = tiny_uno(config_file.parent / "data", **CHANGES)
    mesh = make_mesh(config.mesh)
    target = abstract_run_params(config, mesh)
    actual, leaves = (
        flatten_dict(restore_tree(path / "checkpoints" / str(last) / "params", target), sep="/")
        for path in (workdir, alone)
    )
    for path, before in flatten_dict(start_params(config, mesh).params, sep="/").items():
        went = np.linalg.norm(leaves[path] - before)
        distance = np.linalg.norm(actual[path] - leaves[path])
        assert distance <= 1e-4 * went, f"{path} differs by {distance:.3g} after a total change of {went:.3g}"
    assert (workdir / "pictures" / "step_000002.png").is_file()


def test_a_host_that_finds_no_data_ends_all_hosts(config_file, tmp_path):
    ended = hosts(config_file, tmp_path, 2, "2,4,1,1", 2, f"--config.data.directory={tmp_path / 'nothing'}").wait(60)
    assert_status(ended, 1)
    assert "of 2: ConfigError" in ended[0].printed


def test_hosts_must_share_their_workdir(config_file, tmp_path):
    """Host 0 finds a checkpoint in its workdir, host 1 finds none."""
    assert_status(hosts(config_file, tmp_path / "0", 1, "1,1,1,1", 2).wait(), 0)
    ended = hosts(config_file, tmp_path / "{host}", 2, "8,1,1,1", 4).wait(60)
    assert_status(ended, 1)
    for host in ended:
        assert "the hosts find different checkpoints in" in host.printed
        assert "2, none" in host.printed


@pytest.fixture(autouse=True)
def _flags():
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # grain reads them
