"""Every array that is read from a checkpoint is what was saved, or the checkpoint is named as damaged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.helpers.damage import cut, files_of, flip_bit, remove_checksums
from uno_jax.process.errors import CheckpointError
from uno_jax.training.checkpoint_folders import (
    check_files,
    find_checkpoint,
    has_ema,
)
from uno_jax.training.checkpoints import Checkpoints
from uno_jax.training.state import create_state
from uno_jax.training.stored_trees import check_tree, read_tree, restore_leaves, restore_tree, saved_leaves

PARAMS = {
    "latent_in": {"kernel": jax.random.normal(jax.random.key(0), (32, 64)), "bias": jnp.ones(64, jnp.bfloat16)},
    "latent_out": {"kernel": jax.random.normal(jax.random.key(1), (64, 16))},
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    checkpoints = Checkpoints(folder, keep=1, assets={"config.json": b"{}", "model.json": b'{"a": 1}'})
    checkpoints.save(7, create_state(PARAMS, ("latent_in",), optax.adam(1e-3), ema=True), {"shard": {"next": 3}})
    checkpoints.close()
    return folder / "7"


@pytest.fixture
def checkpoint(whole, tmp_path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(whole, tmp_path / "7"))


def restore(checkpoint: Path) -> dict:
    return restore_tree(checkpoint / "params", PARAMS)


def problem_of(checkpoint: Path) -> str | None:
    """Returns what is said about a damaged checkpoint, or None if its parameters are whole."""
    try:
        params = restore(checkpoint)
    except CheckpointError as error:
        return str(error)
    assert_whole(params)
    return None


def assert_whole(params: dict) -> None:
    jax.tree.map(np.testing.assert_array_equal, params, PARAMS)


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("bit", [0, 777, 55_555])
def test_a_flipped_bit_in_a_file_of_arrays_is_noticed_or_harmless(checkpoint, number, bit):
    flip_bit(files_of(checkpoint / "params")[number], bit)
    problem = problem_of(checkpoint)
    assert problem is None or ("7/params: " in problem and "\n" not in problem)


def test_a_flipped_bit_in_the_values_of_an_array_is_noticed_with_its_name(checkpoint):
    flip_bit(files_of(checkpoint / "params")[0], 8 * 4000)
    with pytest.raises(CheckpointError, match=r"7/params: damaged: the checksum differs .* latent_in/kernel"):
        restore(checkpoint)
    with pytest.raises(CheckpointError, match=r"latent_in/kernel"):
        restore_leaves(checkpoint / "params", ["latent_in/kernel"])
    assert restore_leaves(checkpoint / "params", ["latent_out/kernel"])  # only what is read is checked


@pytest.mark.parametrize("damage", [Path.unlink, cut, lambda file: file.write_bytes(b"")])
def test_a_missing_or_cut_file_of_arrays_is_one_line_without_tracebacks_of_libraries(checkpoint, damage, capfd):
    damage(files_of(checkpoint / "params")[0])
    with pytest.raises(CheckpointError, match="7/params: files are missing or damaged") as error:
        restore(checkpoint)
    assert "\n" not in str(error.value)
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("name", ["_METADATA", "manifest.ocdbt"])
@pytest.mark.parametrize("damage", [Path.unlink, cut, lambda file: flip_bit(file, 300)])
def test_a_damaged_metadata_file_is_noticed_or_harmless(checkpoint, name, damage, capfd):
    damage(checkpoint / "params" / name)
    assert "\n" not in (problem_of(checkpoint) or "")
    assert "Traceback" not in capfd.readouterr().err


def test_an_array_that_the_metadata_lacks_is_damage_and_not_another_model(checkpoint):
    file = checkpoint / "params" / "_METADATA"
    metadata = json.loads(file.read_bytes())
    del metadata["tree_metadata"]["('latent_out', 'kernel')"]
    file.write_text(json.dumps(metadata))
    with pytest.raises(CheckpointError, match="damaged: the list of arrays differs"):
        saved_leaves(checkpoint / "params")


@pytest.mark.parametrize("file", ["assets/model.json", "data/metadata", "checksums/checksums.json"])
@pytest.mark.parametrize("damage", [Path.unlink, cut, lambda file: flip_bit(file, 20)])
def test_a_damaged_small_file_is_named(checkpoint, file, damage):
    assert check_files(checkpoint, resumable=True)
    damage(checkpoint / file)
    with pytest.raises(CheckpointError, match=file):
        check_files(checkpoint, resumable=True)


@pytest.mark.parametrize("item", ["params", "training", "ema", "data", "assets", "checksums"])
def test_a_missing_folder_is_named(checkpoint, item):
    shutil.rmtree(checkpoint / item)
    with pytest.raises(CheckpointError, match=item):
        check_files(checkpoint, resumable=True)
    assert find_checkpoint(checkpoint.parent) == checkpoint  # not taken for an older one


def test_a_copy_without_what_only_a_run_needs_is_a_model(checkpoint):
    for item in ("training", "data", "ema"):
        shutil.rmtree(checkpoint / item)
    assert check_files(checkpoint)
    assert_whole(restore(checkpoint))


def test_a_removed_ema_is_not_one_that_was_never_kept(checkpoint):
    shutil.rmtree(checkpoint / "ema")
    assert has_ema(checkpoint)


def test_values_that_are_not_finite_are_named_unless_they_are_only_looked_at(tmp_path):
    params = {"latent_in": {"kernel": jnp.asarray([1.0, jnp.nan])}}
    checkpoints = Checkpoints(tmp_path, keep=1, assets={})
    good = create_state({"latent_in": {"kernel": jnp.ones(2)}}, ("",), optax.sgd(1.0), ema=False)
    with pytest.raises(FloatingPointError, match="params/latent_in/kernel holds values that are not finite"):
        checkpoints.save(1, good.replace(trainable=params), {})
    checkpoints.save(1, good, {})
    checkpoints.close()
    with pytest.raises(CheckpointError, match="latent_in/kernel holds values that are not finite"):
        check_tree(remove_and_return(tmp_path / "1") / "params", params)
    check_tree(tmp_path / "1" / "params", params, finite=())


def remove_and_return(checkpoint: Path) -> Path:
    remove_checksums(checkpoint)
    return checkpoint


def test_a_checkpoint_without_checksums_is_read_as_before(checkpoint):
    remove_checksums(checkpoint)
    assert not check_files(checkpoint)
    assert_whole(restore(checkpoint))


def test_arrays_are_checked_before_they_are_cast(checkpoint):
    half = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.bfloat16), PARAMS)
    expected = jax.tree.map(lambda x: x.astype(jnp.bfloat16), PARAMS)
    jax.tree.map(np.testing.assert_array_equal, restore_tree(checkpoint / "params", half), expected)
    flip_bit(files_of(checkpoint / "params")[0], 8 * 4000)
    with pytest.raises(CheckpointError, match="the checksum differs"):
        restore_tree(checkpoint / "params", half)


def test_trees_can_be_read_now_and_checked_later(checkpoint):
    tree = read_tree(checkpoint / "params", PARAMS)
    check_tree(checkpoint / "params", tree)
    tree["latent_out"]["kernel"] = tree["latent_out"]["kernel"] + 1
    with pytest.raises(CheckpointError, match="latent_out/kernel"):
        check_tree(checkpoint / "params", tree)
