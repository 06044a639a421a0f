"""Any mesh, of one host or of several, computes what one device does; and hosts agree, and fail together."""

from __future__ import annotations

import json
import signal

import numpy as np
import pytest
from jax._src import distributed

from tests.helpers.hosts import Hosts
from tests.helpers.mesh_steps import start
from uno_jax.config import ConfigError
from uno_jax.parallel.hosts import failing_together, join_hosts

ONE = "1,1,1,1"
DATA, TENSOR, NO_DATA, SEQUENCE = "8,1,1,1", "2,2,2,1", "1,4,2,1", "2,2,1,2"
MANY_HEADS = "1,2,4,1"  # more devices than key-value heads

slow = pytest.mark.slow


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    """A function that runs three steps on the meshes, on so many hosts with eight devices in all: losses and leaves."""

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
    """Losses to 1e-5: sums in another order. Leaves after three steps to 1e-4 of how far each of them went, which is
    what rounding in float32 comes to in a gradient that is a sum of thousands of terms."""
    for name, losses in expected[0]["losses"].items():
        assert len(losses) == 3
        np.testing.assert_allclose(actual[0]["losses"][name], losses, rtol=1e-5, err_msg=name)
    before = start()
    for path, leaf in expected[1].items():
        went = np.linalg.norm(leaf - before[path.replace("average/", "params/", 1)])
        distance = np.linalg.norm(actual[1][path] - leaf)
        assert went > 0, path
        assert distance <= 1e-4 * went, f"{path} differs by {distance:.3g} after going {went:.3g}"


@pytest.mark.parametrize("mesh", [TENSOR, SEQUENCE])
def test_eight_devices_compute_what_one_does(one_host, mesh):
    assert_same(one_host[mesh], one_host[ONE])


@pytest.mark.parametrize("mesh", [SEQUENCE, pytest.param(MANY_HEADS, marks=slow)])
def test_the_kernel_on_eight_devices_computes_what_dense_attention_on_one_does(steps, one_host, mesh):
    """Queries, or heads, cut by `shard_map`: the path of every run on several TPUs."""
    assert_same(steps(1, mesh, attention="kernel")[mesh], one_host[ONE])


def test_two_hosts_compute_what_one_does(steps, one_host):
    assert_same(steps(2, TENSOR)[TENSOR], one_host[ONE])


def test_leaves_are_cut_on_several_devices_only(one_host):
    assert one_host[ONE][0]["cut"] == 0
    assert one_host[TENSOR][0]["cut"] > one_host[SEQUENCE][0]["cut"] > 0  # biases are cut over heads


@slow
@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_every_mesh_on_every_number_of_hosts_computes_the_same(steps, one_host, hosts):
    for result in steps(hosts, DATA, TENSOR, NO_DATA, SEQUENCE).values():
        assert_same(result, one_host[ONE])


@slow
def test_hosts_that_hold_the_same_rows_compute_the_same(steps, one_host):
    """Heads over four devices of two hosts; tokens over two hosts."""
    for result in steps(4, MANY_HEADS, "1,1,2,4").values():
        assert_same(result, one_host[ONE])


def test_rows_keep_their_order_on_hosts_whose_devices_are_not_neighbours():
    ended = Hosts(["-m", "tests.helpers.hosts_rows"], hosts=2, devices=2).wait(60)
    for parts, host in zip(["(0, 2)", "(1, 3)"], ended, strict=True):
        assert host.status == 0, host
        assert f"parts {parts}" in host.printed
        assert f"batch {list(range(8))}" in host.printed


def test_hosts_stop_together_and_gather_what_each_of_them_says():
    ended = Hosts(["-m", "tests.helpers.hosts_talk"], hosts=2, devices=1).wait(60)
    assert [host.status for host in ended] == [0, 0], ended
    said = [line for host in ended for line in host.printed.splitlines() if line.startswith("stopped")]
    expected = [{"host": 0, "texts": ""}, {"host": 1, "texts": "é"}]
    assert said == [f"stopped at 4, gathered {expected}"] * 2


@pytest.mark.parametrize("failing", [0, 1])
@pytest.mark.parametrize("when", ["fail", "fail_last"])
def test_a_host_that_fails_ends_all_and_is_named_on_each(failing, when):
    """Also where the others are through with their work already."""
    ended = Hosts(["-m", "tests.helpers.hosts_talk", f"--{when}={failing}"], hosts=2, devices=1).wait(60)
    for host in ended:
        assert host.status == 1, host
        assert f"host {failing} of 2: OSError: the disk is full" in host.printed
    assert f"host {1 - failing} of 2 stops, because another failed" in ended[1 - failing].printed


@pytest.mark.parametrize("killed", [0, 1])
def test_when_a_host_is_killed_the_other_ends_with_an_error_within_a_minute(killed):
    ended = Hosts(["-m", "tests.helpers.hosts_talk", f"--kill={killed}"], hosts=2, devices=1).wait(60)
    assert ended[killed].status == -signal.SIGKILL
    assert ended[1 - killed].status != 0


JOIN = "import jax, uno_jax.parallel.hosts as hosts; hosts.join_hosts(); print(jax.distributed.is_initialized())"
SLURM = {"SLURM_JOB_ID": "1", "SLURM_STEP_NODELIST": "localhost", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}


def test_a_process_without_a_cluster_is_alone():
    """Looked for wherever JAX_PLATFORMS is not `cpu`."""
    (ended,) = Hosts(["-c", JOIN], hosts=1, devices=1, settings={"JAX_PLATFORMS": ""}).wait(60)
    assert ended.status == 0, ended
    assert ended.printed.splitlines()[-1] == "False"


def test_a_cluster_with_a_wrong_setting_is_refused():
    settings = {"JAX_PLATFORMS": "", **SLURM, "SLURM_NTASKS": "two"}
    (ended,) = Hosts(["-c", JOIN], hosts=1, devices=1, settings=settings).wait(60)
    assert ended.status == 1
    assert "ConfigError: the hosts of this cluster cannot be joined: invalid literal" in ended.printed
    assert "'two'" in ended.printed


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"JAX_NUM_PROCESSES": "two"}, "variable JAX_NUM_PROCESSES is 'two', not an integer"),
        ({"JAX_COORDINATOR_ADDRESS": "localhost:1", "JAX_PROCESS_ID": "0"}, "--processes .JAX_NUM_PROCESSES.: missing"),
    ],
)
def test_a_variable_that_is_wrong_or_missing_is_named(monkeypatch, settings, expected):
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
def test_numbers_that_do_not_go_together_are_refused(arguments, expected):
    with pytest.raises(ConfigError, match=expected):
        join_hosts(*arguments)


def test_a_jax_without_the_store_that_hosts_share_is_refused(monkeypatch):
    monkeypatch.setattr(distributed.global_state, "client", object())
    with pytest.raises(ConfigError, match="JAX .* lacks the key-value store"), failing_together():
        pass
