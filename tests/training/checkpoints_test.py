"""A checkpoint restores exactly, is complete, and is rejected if it does not match."""

from __future__ import annotations

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from uno_jax.parallel.mesh import MeshConfig, make_mesh
from uno_jax.parallel.parameters import with_shardings
from uno_jax.process.errors import CheckpointError, CheckpointMismatch
from uno_jax.training.checkpoint_folders import (
    find_checkpoint,
    has_anchor,
    read_asset,
    read_data_state,
)
from uno_jax.training.checkpoints import Checkpoints, gather_hosts, restore_state
from uno_jax.training.state import TrainState, create_state, merge
from uno_jax.training.stored_trees import restore_tree

ASSETS = {"config.json": b"{}", "vocab.json": b'{"a": 0}'}
DATA = {"shard_0000_of_0002": {"next": 3}, "shard_0001_of_0002": {"next": 5}}


def small_state(width: int = 4, ema: bool = True) -> TrainState:
    params = {
        "latent_in": {"kernel": jnp.arange(3.0 * width).reshape(3, width), "bias": jnp.ones(width, jnp.bfloat16)},
        "latent_out": {"kernel": jnp.full((2, 2), 0.1, jnp.bfloat16)},
    }
    state = create_state(params, ("latent_in",), optax.adam(1e-3), ema=ema)
    return state.replace(step=jnp.int32(7), skipped=jnp.int32(1))


def abstract(state: TrainState) -> TrainState:
    return with_shardings(state, make_mesh(MeshConfig(), jax.devices()[:1]))


def assert_equal(actual: TrainState, expected: TrainState) -> None:
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("ema", [True, False])
def test_a_saved_state_is_restored_exactly(tmp_path, ema):
    state = small_state(ema=ema)
    checkpoints = Checkpoints(tmp_path, keep=2, assets=ASSETS)
    checkpoints.save(7, state, DATA)
    checkpoints.wait()
    restored, data = restore_state(tmp_path / "7", abstract(state))
    assert_equal(restored, state)
    assert data == DATA
    checkpoints.close()


def test_a_missing_ema_starts_from_copies_of_the_parameters(tmp_path):
    state = small_state()
    checkpoints = Checkpoints(tmp_path, keep=2, assets=ASSETS)
    checkpoints.save(7, state.replace(ema=None), DATA)
    checkpoints.wait()
    restored, _ = restore_state(tmp_path / "7", abstract(state))
    checkpoints.close()
    assert jax.tree.map(lambda x: x.dtype, restored.ema) == jax.tree.map(lambda x: x.dtype, state.ema)
    jax.tree.map(np.testing.assert_array_equal, restored.ema, state.trainable)
    jax.jit(lambda state: jax.tree.map(lambda x: x * 0, state), donate_argnums=0)(restored)


@pytest.mark.parametrize(
    ("saved", "wanted", "expected"),
    [
        ([1.0, 2.0], 2, [1.0, 2.0]),
        ([1.0, 2.0], 3, [np.inf] * 3),
        ([1.0, 2.0], None, None),
        (None, 2, [np.inf] * 2),
    ],
    ids=["the same number", "another number", "none", "missing"],
)
def test_recent_losses_are_restored_if_they_are_as_many(tmp_path, saved, wanted, expected):
    state = small_state()
    checkpoints = Checkpoints(tmp_path, keep=2, assets=ASSETS)
    checkpoints.save(7, state.replace(recent_losses=None if saved is None else jnp.array(saved)), DATA)
    checkpoints.wait()
    checkpoints.close()
    target = state.replace(recent_losses=None if wanted is None else jnp.zeros(wanted))
    restored, _ = restore_state(tmp_path / "7", abstract(target))
    assert (None if restored.recent_losses is None else restored.recent_losses.tolist()) == expected
    assert_equal(restored.replace(recent_losses=None), state)


def test_the_gradient_norm_of_a_loss_missing_from_the_checkpoint_is_not_measured_yet(tmp_path):
    state = small_state()
    saved = state.replace(gradient_norms={"flow": jnp.float32(2), "caption": jnp.float32(3)})
    checkpoints = Checkpoints(tmp_path, keep=2, assets=ASSETS)
    checkpoints.save(7, saved, DATA)
    checkpoints.wait()
    restored, _ = restore_state(tmp_path / "7", abstract(state))
    checkpoints.close()
    assert restored.gradient_norms == {**state.gradient_norms, "flow": 2, "caption": 3}
    assert restored.gradient_norms["visual"] == 0


def test_the_gradient_norm_of_a_loss_that_is_no_longer_measured_is_dropped(tmp_path):
    state = small_state()
    saved = state.replace(gradient_norms={**state.gradient_norms, "align": jnp.float32(2)})
    checkpoints = Checkpoints(tmp_path, keep=2, assets=ASSETS)
    checkpoints.save(7, saved, DATA)
    checkpoints.wait()
    restored, _ = restore_state(tmp_path / "7", abstract(state))
    checkpoints.close()
    assert_equal(restored, state)


def test_the_start_of_an_anchored_run_is_restored_exactly_and_may_be_left(tmp_path):
    state = small_state()
    anchored = state.replace(anchor=jax.tree.map(lambda x: x - 1, state.trainable))
    checkpoints = Checkpoints(tmp_path, keep=2, assets=ASSETS)
    checkpoints.save(7, anchored, DATA)
    checkpoints.wait()
    assert has_anchor(tmp_path / "7")
    assert_equal(restore_state(tmp_path / "7", abstract(anchored))[0], anchored)
    assert_equal(restore_state(tmp_path / "7", abstract(state))[0], state)
    checkpoints.close()


def test_a_state_may_be_donated_as_soon_as_save_returns(tmp_path):
    state, kept = jax.tree.map(jnp.copy, small_state()), small_state()
    checkpoints = Checkpoints(tmp_path, keep=2, assets=ASSETS)
    overwrite = jax.jit(lambda state: jax.tree.map(lambda x: x * 0, state), donate_argnums=0)
    checkpoints.save(7, state, DATA)
    overwrite(state)
    checkpoints.wait()
    assert_equal(restore_state(tmp_path / "7", abstract(kept))[0], kept)
    checkpoints.close()


def test_a_checkpoint_alone_is_complete(tmp_path):
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints", keep=2, assets=ASSETS)
    checkpoints.save(7, small_state(), DATA, autoencoder={"encoder": {"bias": jnp.ones(3)}})
    checkpoints.close()
    elsewhere = tmp_path / "elsewhere"
    shutil.move(tmp_path / "run" / "checkpoints" / "7", elsewhere)
    assert {name: read_asset(elsewhere, name) for name in ASSETS} == ASSETS
    assert read_data_state(elsewhere) == DATA
    params = restore_tree(elsewhere / "params", merge(small_state().trainable, small_state().frozen))
    np.testing.assert_array_equal(params["latent_in"]["kernel"], small_state().trainable["latent_in"]["kernel"])
    autoencoder = restore_tree(elsewhere / "autoencoder", {"encoder": {"bias": jnp.zeros(3)}})
    np.testing.assert_array_equal(autoencoder["encoder"]["bias"], np.ones(3))


@pytest.mark.parametrize("damage", [shutil.rmtree, lambda data: (data / "metadata").write_text('{"shard_0')])
def test_a_damaged_data_position_is_named(tmp_path, damage):
    checkpoints = Checkpoints(tmp_path, keep=2, assets=ASSETS)
    checkpoints.save(7, small_state(), DATA)
    checkpoints.close()
    damage(tmp_path / "7" / "data")
    with pytest.raises(CheckpointError, match="7/data/metadata: missing or damaged"):
        read_data_state(tmp_path / "7")


def test_only_the_newest_checkpoints_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2, assets=ASSETS)
    for step in (1, 2, 3):
        checkpoints.save(step, small_state(), DATA)
    checkpoints.close()
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.isdigit()) == ["2", "3"]
    assert find_checkpoint(tmp_path) == tmp_path / "3"


def test_an_unfinished_checkpoint_is_ignored(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=3, assets=ASSETS)
    for step in (1, 2):
        checkpoints.save(step, small_state(), DATA)
    checkpoints.close()
    (tmp_path / "2").rename(tmp_path / "2.orbax-checkpoint-tmp")
    assert find_checkpoint(tmp_path) == tmp_path / "1"


def test_a_checkpoint_of_another_size_is_rejected_with_the_sizes(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2, assets=ASSETS)
    checkpoints.save(7, small_state(width=4), DATA)
    checkpoints.wait()
    with pytest.raises(CheckpointMismatch) as error:
        restore_state(tmp_path / "7", abstract(small_state(width=6)))
    assert "latent_in/kernel is (3, 4) in the checkpoint but (3, 6) in the model" in str(error.value)
    assert "latent_in/bias is (4,) in the checkpoint but (6,) in the model" in str(error.value)
    checkpoints.close()


def test_missing_and_unexpected_tensors_are_named(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2, assets=ASSETS)
    checkpoints.save(7, small_state(), DATA)
    checkpoints.close()
    with pytest.raises(CheckpointMismatch) as error:
        restore_tree(tmp_path / "7" / "params", {"latent_out": {"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros(2)}})
    assert "latent_out/bias (2,) is missing from the checkpoint" in str(error.value)
    assert "latent_in/bias (4,) is in the checkpoint but not in the model" in str(error.value)


def test_a_part_can_be_ignored_and_dtypes_are_as_requested(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2, assets=ASSETS)
    checkpoints.save(7, small_state(), DATA)
    checkpoints.close()
    target = {"latent_out": {"kernel": jax.ShapeDtypeStruct((2, 2), jnp.float32)}}
    params = restore_tree(tmp_path / "7" / "params", target, ignored=("latent_in",))
    assert params["latent_out"]["kernel"].dtype == jnp.float32
    np.testing.assert_array_equal(params["latent_out"]["kernel"], np.full((2, 2), 0.1, jnp.bfloat16).astype(np.float32))


def test_a_checkpoint_is_found_by_its_run_its_folder_or_itself(tmp_path):
    assert find_checkpoint(tmp_path / "run") is None
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints", keep=2, assets=ASSETS)
    for step in (9, 10):
        checkpoints.save(step, small_state(), DATA)
    checkpoints.close()
    newest = tmp_path / "run" / "checkpoints" / "10"
    for path in (tmp_path / "run", tmp_path / "run" / "checkpoints", newest):
        assert find_checkpoint(path) == newest


def test_one_host_gathers_its_own_shards():
    assert gather_hosts(DATA) == DATA
