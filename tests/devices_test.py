"""Eight devices compute what one does: data parallel, fully sharded, and both."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.eight_device_process import run_with_eight_devices
from tests.eight_devices import MESHES

MANY = [name for name in MESHES if name != "one"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> tuple[dict, dict[str, dict[str, np.ndarray]]]:
    """What each mesh printed, and its leaves; three steps each, in a process of eight CPU devices."""
    directory = tmp_path_factory.mktemp("devices")
    printed = run_with_eight_devices("-m", "tests.eight_devices", str(directory))
    return json.loads(printed), {name: dict(np.load(directory / f"{name}.npz")) for name in ("start", *MESHES)}


@pytest.mark.parametrize("mesh", MANY)
def test_losses_are_those_of_one_device(runs, mesh):
    """To 1e-5: sums in another order."""
    printed, _ = runs
    for name, losses in printed["one"]["losses"].items():
        assert len(losses) == 3
        np.testing.assert_allclose(printed[mesh]["losses"][name], losses, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("mesh", MANY)
def test_parameters_move_as_on_one_device(runs, mesh):
    """After three steps, to 1e-4 of how far each leaf (and its average) went."""
    _, leaves = runs
    for path, expected in leaves["one"].items():
        went = np.linalg.norm(expected - leaves["start"][path.replace("average/", "params/", 1)])
        distance = np.linalg.norm(leaves[mesh][path] - expected)
        assert went > 0, path
        assert distance <= 1e-4 * went, f"{path} differs by {distance:.3g} after going {went:.3g}"


def test_fully_sharded_leaves_are_cut_and_data_parallel_ones_are_not(runs):
    printed, _ = runs
    assert {mesh: printed[mesh]["cut"] > 0 for mesh in MESHES} == {
        "one": False,
        "data8": False,
        "fsdp8": True,
        "data2_fsdp2_tensor2": True,
        "fsdp4_tensor2": True,
        "data2_fsdp2_sequence2": True,
        "kernel_tensor4_sequence2": True,
    }
