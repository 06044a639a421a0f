"""Checkpoints are independent of the devices that write and read them."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from tests.helpers.eight_device_checkpoints import WIDE, train_state
from tests.helpers.eight_device_process import run_with_eight_devices
from tests.helpers.one_device_state import ONE, assert_restored, write_state
from tests.helpers.public_model import load_public
from tests.helpers.small_checkpoint import write_checkpoint
from tests.helpers.small_model import small_params
from tests.helpers.small_public import write_public
from uno_jax.interop.load import load_model


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """Directory of checkpoints of one and of eight devices, and the numbers of sharded leaves."""
    directory = tmp_path_factory.mktemp("devices")
    write_public(directory / "public", decoder={"intermediate_size": 4096})
    write_checkpoint(directory / "run", model=WIDE, params=small_params(WIDE))
    write_state(directory / "state")
    printed = run_with_eight_devices("-m", "tests.helpers.eight_device_checkpoints", str(directory))
    return directory, json.loads(printed.splitlines()[-1])


def assert_equal(actual, expected):
    flat = flatten_dict(expected, sep="/")
    assert set(actual) == set(flat)
    for name, leaf in flat.items():
        assert actual[name].dtype == leaf.dtype
        np.testing.assert_array_equal(actual[name], leaf, err_msg=name)


def test_leaves_are_sharded_on_eight_devices(directory):
    assert all(number > 0 for number in directory[1])


def test_a_public_directory_is_read_with_any_sharding(directory):
    assert_equal(np.load(directory[0] / "placed.npz"), load_public(directory[0] / "public").params)


def test_one_device_reads_an_import_of_eight_devices(directory):
    imported, public = load_model(directory[0] / "imported"), load_model(directory[0] / "public")
    assert_equal(flatten_dict(imported.params, sep="/"), public.params)
    assert_equal(flatten_dict(imported.autoencoder_params, sep="/"), public.autoencoder_params)


def test_eight_devices_read_a_checkpoint_of_one_device(directory):
    assert_equal(np.load(directory[0] / "restored.npz"), small_params(WIDE))


def test_one_device_reads_a_checkpoint_of_eight_devices(directory):
    saved = load_model(directory[0] / "saved")
    assert jax.tree.leaves(saved.params)[0].sharding.num_devices == 1
    assert_equal(flatten_dict(saved.params, sep="/"), small_params(WIDE))


def test_a_train_state_moves_from_one_device_to_eight_and_back(directory):
    assert_restored(directory[0] / "resumed", train_state(ONE), {"shard_0000_of_0001": {"next": 5}})
