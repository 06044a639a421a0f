"""Several devices and hosts compute the same as one device; hosts agree and fail together."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.hosts import Ended, Hosts
from tests.helpers.mesh_steps import start
from uno_jax.config import ConfigError
from uno_jax.parallel.hosts import checked_store, join_hosts
from uno_jax.process.watchdog import EXIT_STATUS

ONE = "1,1,1,1"
DATA, TENSOR, NO_DATA, SEQUENCE = "8,1,1,1", "2,2,2,1", "1,4,2,1", "2,2,1,2"
MANY_HEADS = "1,2,4,1"  # more devices than key-value heads

slow = pytest.mark.slow


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    """Runs three steps on each mesh, on `hosts` hosts with eight devices in total; returns losses and leaves."""

    def steps(hosts: int, *meshes: str, attention: str = "dense") -> dict[str, tuple[dict, dict[str, np.ndarray]]]:
        directory = tmp_path_factory.mktemp("steps")
        arguments = ["-m", "tests.helpers.mesh_steps", str(directory), *meshes, f"--attention={attention}"]
        ended = Hosts(arguments, hosts=hosts, devices=8 // hosts).wait()
        assert [host.status for host in ended] == [0] * hosts, "\n".join(host.printed for host in ended)
        printed = next(line for line in ended[0].printed.splitlines() if line.startswith("{"))
        return {
            mesh: (result, dict(np.load(directory / f"{mesh}.npz"))) for mesh, result in json.loads(printed).items()
        }

    return steps


@pytest.fixture(scope="module")
def one_host(steps):
    return steps(1, ONE, TENSOR, SEQUENCE)


def assert_same(actual: tuple, expected: tuple) -> None:
    """Compares losses to 1e-5 (another order of sums), and leaves after three steps to 1e-4 of the distance moved.

    The latter is the float32 rounding of a gradient that is a sum of thousands of terms.
    """
    for name, losses in expected[0]["losses"].items():
        assert len(losses) == 3
        np.testing.assert_allclose(actual[0]["losses"][name], losses, rtol=1e-5, err_msg=name)
    before = start()
    for path, leaf in expected[1].items():
        went = np.linalg.norm(leaf - before[path.replace("ema/", "params/", 1)])
        distance = np.linalg.norm(actual[1][path] - leaf)
        assert went > 0, path
        assert distance <= 1e-4 * went, f"{path} differs by {distance:.3g} after going {went:.3g}"


@pytest.mark.parametrize("mesh", [TENSOR, SEQUENCE])
def test_eight_devices_compute_the_same_as_one(one_host, mesh):
    assert_same(one_host[mesh], one_host[ONE])


@pytest.mark.parametrize("mesh", [SEQUENCE, pytest.param(MANY_HEADS, marks=slow)])
def test_the_kernel_on_eight_devices_computes_the_same_as_dense_attention_on_one(steps, one_host, mesh):
    """`shard_map` shards queries or heads: the code path of every run on several TPUs."""
    assert_same(steps(1, mesh, attention="kernel")[mesh], one_host[ONE])


def test_two_hosts_compute_the_same_as_one(steps, one_host):
    assert_same(steps(2, TENSOR)[TENSOR], one_host[ONE])


def test_leaves_are_sharded_on_several_devices_only(one_host):
    assert one_host[ONE][0]["sharded"] == 0
    # Biases are sharded over heads.
    assert one_host[TENSOR][0]["sharded"] > one_host[SEQUENCE][0]["sharded"] > 0


@slow
@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_every_mesh_on_every_number_of_hosts_computes_the_same(steps, one_host, hosts):
    for result in steps(hosts, DATA, TENSOR, NO_DATA, SEQUENCE).values():
        assert_same(result, one_host[ONE])


@slow
def test_hosts_that_hold_the_same_rows_compute_the_same(steps, one_host):
    """Shards heads over four devices of two hosts, and tokens over two hosts."""
    for result in steps(4, MANY_HEADS, "1,1,2,4").values():
        assert_same(result, one_host[ONE])


def test_rows_keep_their_order_on_hosts_with_non_contiguous_devices():
    ended = Hosts(["-m", "tests.helpers.hosts_rows"], hosts=2, devices=2).wait(60)
    for parts, host in zip(["(0, 2)", "(1, 3)"], ended, strict=True):
        assert host.status == 0, host
        assert f"parts {parts}" in host.printed
        assert f"batch {list(range(8))}" in host.printed


def test_hosts_stop_together_and_gather_the_values_of_all():
    ended = Hosts(["-m", "tests.helpers.hosts_talk"], hosts=2, devices=1).wait(60)
    assert [host.status for host in ended] == [0, 0], ended
    said = [line for host in ended for line in host.printed.splitlines() if line.startswith("stopped")]
    expected = [{"host": 0, "texts": ""}, {"host": 1, "texts": "é"}]
    assert said == [f"stopped at 4, gathered {expected}"] * 2


@pytest.mark.parametrize("failing", [0, 1])
@pytest.mark.parametrize("when", ["fail", "fail_last"])
def test_a_failure_on_one_host_stops_all_and_each_names_it(failing, when):
    """This also holds if the other hosts have already finished."""
    ended = Hosts(["-m", "tests.helpers.hosts_talk", f"--{when}={failing}"], hosts=2, devices=1).wait(60)
    for host in ended:
        assert host.status == 1, host
        assert f"host {failing} of 2: OSError: the disk is full" in host.printed
    assert f"host {1 - failing} of 2 stops because another host failed" in ended[1 - failing].printed


@pytest.mark.parametrize("killed", [0, 1])
def test_when_a_host_is_killed_the_other_exits_with_an_error_within_a_minute(killed):
    ended = Hosts(["-m", "tests.helpers.hosts_talk", f"--kill={killed}"], hosts=2, devices=1).wait(60)
    assert ended[killed].status == -signal.SIGKILL
    assert ended[1 - killed].status != 0
    if killed == 1:
        assert "host 1 of 2: no answer for 3 s, which may be the cause" in ended[0].printed


def end_of_the_other(running: Hosts, host: int) -> tuple[Ended, float]:
    """Waits until the other of two hosts ends, and returns how it ended, and after how many seconds of silence."""
    began = time.monotonic()
    running.processes[1 - host].wait(100)
    seconds = time.monotonic() - began
    running.processes[host].kill()
    return running.wait(60)[1 - host], seconds


def wait_until_stopped(process: subprocess.Popen[bytes]) -> None:
    while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        assert process.poll() is None
        time.sleep(0.1)


@slow
@pytest.mark.parametrize("stopped", [0, 1])
def test_a_host_whose_machine_hangs_is_given_up_after_the_timeout(stopped):
    """Its connections stay open. Host 0 is missed by JAX, ten seconds later."""
    running = Hosts(["-m", "tests.helpers.hosts_talk", f"--stop={stopped}", "--timeout=8"], hosts=2, devices=1)
    wait_until_stopped(running.processes[stopped])
    ended, seconds = end_of_the_other(running, stopped)
    print(f"host {1 - stopped} ended {seconds:.1f} s after host {stopped} was stopped\n{ended.printed}")
    assert ended.status != 0
    if stopped == 1:
        assert "host 0 of 2 stops because another host failed: host 1 of 2: no answer for 8 s" in ended.printed


@slow
@pytest.mark.parametrize("hanging", [0, 1])
def test_a_host_that_hangs_but_answers_is_ended_by_its_watchdog_and_named_by_the_other(hanging):
    arguments = ["-m", "tests.helpers.hosts_talk", f"--hang={hanging}", "--patience=10"]
    ended = Hosts(arguments, hosts=2, devices=1).wait(100)
    message = f"host {hanging} of 2: nothing happened for 10 s while waiting for the batch of step 3"
    assert ended[hanging].status == EXIT_STATUS
    assert ended[1 - hanging].status == 1
    assert f"host {1 - hanging} of 2 stops because another host failed: {message}" in ended[1 - hanging].printed


@slow
def test_a_host_that_has_finished_waits_for_the_others_however_long_they_take():
    """JAX's barrier at the end would give up after 300 seconds."""
    running = Hosts(["-m", "tests.helpers.hosts_talk", "--late=320"], hosts=2, devices=1)
    assert [host.status for host in running.wait(500)] == [0, 0]


JOIN = "import jax, uno_jax.parallel.hosts as hosts; hosts.join_hosts(); print(jax.distributed.is_initialized())"
SLURM = {"SLURM_JOB_ID": "1", "SLURM_STEP_NODELIST": "localhost", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}


def test_a_process_outside_a_cluster_runs_alone():
    """JAX looks for a cluster unless JAX_PLATFORMS is `cpu`."""
    (ended,) = Hosts(["-c", JOIN], hosts=1, devices=1, settings={"JAX_PLATFORMS": ""}).wait(60)
    assert ended.status == 0, ended
    assert ended.printed.splitlines()[-1] == "False"


def test_a_cluster_with_an_invalid_setting_raises_an_error():
    settings = {"JAX_PLATFORMS": "", **SLURM, "SLURM_NTASKS": "two"}
    (ended,) = Hosts(["-c", JOIN], hosts=1, devices=1, settings=settings).wait(60)
    assert ended.status == 1
    assert "ConfigError: failed to join the hosts of this cluster: invalid literal" in ended.printed
    assert "'two'" in ended.printed


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"JAX_NUM_PROCESSES": "two"}, "variable JAX_NUM_PROCESSES is 'two': expected an integer"),
        (
            {"JAX_COORDINATOR_ADDRESS": "localhost:1", "JAX_PROCESS_ID": "0"},
            "missing --processes .JAX_NUM_PROCESSES.: give all",
        ),
    ],
)
def test_an_invalid_or_missing_variable_is_named(monkeypatch, settings, expected):
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=expected):
        join_hosts()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("localhost:1", 2, 2), r"--process .JAX_PROCESS_ID. is 2: expected 0 to 1"),
        (("localhost:1", 2, -1), "is -1: expected 0 to 1"),
        (("localhost:1", 0, 0), "--processes .JAX_NUM_PROCESSES. is 0"),
        (("localhost", 1, 0), "is 'localhost': expected host:port"),
    ],
)
def test_contradictory_numbers_raise_an_error(arguments, expected):
    with pytest.raises(ConfigError, match=expected):
        join_hosts(*arguments)


def test_a_jax_without_the_key_value_store_raises_an_error():
    with pytest.raises(ConfigError, match="JAX .* lacks the key-value store"):
        checked_store(object())
