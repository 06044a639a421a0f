"""Saves and restores a train state on one device."""

from __future__ import annotations

import jax
import numpy as np

from tests.helpers.eight_device_checkpoints import train_state
from uno_jax.parallel.mesh import MeshConfig, make_mesh
from uno_jax.parallel.parameters import with_shardings
from uno_jax.training.checkpoints import Checkpoints, restore_state

ONE = make_mesh(MeshConfig(), jax.devices()[:1])


def write_state(directory):
    """Saves a checkpoint of a train state on one device, with a data position."""
    state, data_state = train_state(ONE), {"shard_0000_of_0001": {"next": 5}}
    checkpoints = Checkpoints(directory, keep=1, assets={})
    checkpoints.save(3, state, data_state)
    checkpoints.close()
    return state, data_state


def assert_restored(directory, state, data_state):
    """Requires the checkpoint, restored on one device, to equal what `write_state` wrote."""
    checkpoints = Checkpoints(directory, keep=1, assets={})
    restored, restored_data = restore_state(directory / "3", with_shardings(jax.eval_shape(lambda: state), ONE))
    checkpoints.close()
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, restored, state)
    assert restored_data == data_state
