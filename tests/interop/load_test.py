"""A complete model is loaded from a checkpoint of a run, or from a directory in the public layout."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil

import jax
import jax.numpy as jnp
import pytest

from tests.helpers.damage import remove_checksums
from tests.helpers.paths import REFERENCE
from tests.helpers.public_model import load_public
from tests.helpers.small_checkpoint import MODEL, RUN, write_checkpoint
from tests.helpers.small_model import small_model, small_params
from tests.helpers.trees import assert_same
from uno_jax.data.tokenizer import Tokenizer
from uno_jax.data.transforms import ImageTransform
from uno_jax.interop.load import load_model
from uno_jax.models.autoencoder import FluxAutoencoder, PixelAutoencoder
from uno_jax.models.config import AutoencoderConfig
from uno_jax.models.quantised import quantised
from uno_jax.process.errors import CheckpointError, CheckpointMismatch
from uno_jax.training.state import merge


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Workdir of a run, and its saved state."""
    workdir = tmp_path_factory.mktemp("run")
    return workdir, write_checkpoint(workdir)


# A run's checkpoint


@pytest.mark.parametrize("place", ["", "checkpoints", "checkpoints/3"])
def test_a_run_is_loaded_from_its_workdir_its_folder_or_one_checkpoint(run, place):
    workdir, state = run
    model = load_model(workdir / place)
    assert_same(model.params, merge(state.trainable, state.frozen))
    assert model.config == MODEL
    assert isinstance(model.autoencoder, PixelAutoencoder)
    assert model.autoencoder_params == {}
    assert model.origin == str(workdir / "checkpoints" / "3")
    assert re.fullmatch(rf"{workdir.name}/3 \([0-9a-f]{{8}}\)", model.name)


def test_ema_weights_replace_only_the_trained_parameters(run):
    workdir, state = run
    assert_same(load_model(workdir, ema=True).params, merge(state.ema, state.frozen))


def test_a_model_needs_neither_optimizer_nor_data_position(run, tmp_path):
    shutil.copytree(run[0] / "checkpoints" / "3", tmp_path / "copy")
    for item in ("training", "data"):
        shutil.rmtree(tmp_path / "copy" / item)
    for ema in (False, True):
        assert_same(load_model(tmp_path / "copy", ema=ema).params, load_model(run[0], ema=ema).params)


def test_tokenizer_transforms_and_time_shift_are_the_runs(run):
    model = load_model(run[0])
    assert len(model.tokenizer) == len(Tokenizer.from_directory(REFERENCE))
    assert model.vae_transform == RUN.data.vae_transform
    assert model.vit_transform == RUN.data.vit_transform
    assert model.time_shift == 4.0


def test_parameters_keep_their_dtypes_by_default(tmp_path):
    params = small_params(MODEL)
    params["vision"] = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params["vision"])
    write_checkpoint(tmp_path, params=params)
    stored = load_model(tmp_path).params
    assert {leaf.dtype for leaf in jax.tree.leaves(stored["vision"])} == {jnp.dtype(jnp.bfloat16)}
    assert {leaf.dtype for leaf in jax.tree.leaves(stored["decoder"])} == {jnp.dtype(jnp.float32)}
    for ema in (False, True):
        cast = load_model(tmp_path, ema=ema, dtype=jnp.bfloat16).params
        assert {leaf.dtype for leaf in jax.tree.leaves(cast)} == {jnp.dtype(jnp.bfloat16)}


def test_int8_weights_are_those_of_the_checkpoint_rounded_and_said_to_be(run):
    plain, model = load_model(run[0]), load_model(run[0], weights="int8")
    assert_same(model.params, quantised(plain.params))
    assert (plain.precision, model.precision) == ("float32", "float32, int8 weights")


def test_missing_ema_weights_are_an_error(tmp_path):
    write_checkpoint(tmp_path, ema=False)
    load_model(tmp_path)
    with pytest.raises(CheckpointError, match=r"checkpoints/3: the checkpoint has no EMA weights"):
        load_model(tmp_path, ema=True)


def test_tensors_that_do_not_match_the_model_are_named_with_their_sizes(tmp_path):
    wider = dataclasses.replace(MODEL, decoder=dataclasses.replace(MODEL.decoder, mlp_size=50))
    write_checkpoint(tmp_path, model=wider)
    with pytest.raises(CheckpointMismatch, match=r"gate/kernel is \(2, 32, 48\) in the checkpoint but \(2, 32, 50\)"):
        load_model(tmp_path)


def test_a_tokenizer_larger_than_the_vocabulary_is_an_error(tmp_path):
    write_checkpoint(tmp_path, model=small_model(decoder={"vocab_size": 600}))
    with pytest.raises(CheckpointError, match="the tokenizer has 622 ids, but the vocabulary of the model is 600"):
        load_model(tmp_path)


@pytest.mark.parametrize("name", ["model.json", "config.json", "merges.txt"])
def test_a_missing_file_of_a_checkpoint_is_named(run, tmp_path, name):
    shutil.copytree(run[0] / "checkpoints" / "3", tmp_path / "copy")
    (tmp_path / "copy" / "assets" / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        load_model(tmp_path / "copy")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"objective": {"time_shift": "x"}}, "config.json, objective: time_shift is 'x'; expected a positive number"),
        ({"objective": {"time_shift": 0}}, "time_shift is 0; expected a positive number"),
        ({"objective": 3}, "config.json: objective is 3; expected a JSON object"),
        ({"data": []}, "config.json: data is []; expected a JSON object"),
    ],
)
def test_an_invalid_field_of_a_checkpoint_is_named(run, tmp_path, config, message):
    shutil.copytree(run[0] / "checkpoints" / "3", tmp_path / "copy")
    remove_checksums(tmp_path / "copy")
    (tmp_path / "copy" / "assets" / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=re.escape(message)):
        load_model(tmp_path / "copy")


def test_an_invalid_size_of_the_model_is_named_with_its_file(run, tmp_path):
    shutil.copytree(run[0] / "checkpoints" / "3", tmp_path / "copy")
    remove_checksums(tmp_path / "copy")
    file = tmp_path / "copy" / "assets" / "model.json"
    file.write_text(json.dumps({"decoder": {"num_layers": "two"}}))
    with pytest.raises(CheckpointError, match=re.escape(f"{file}: model.decoder.num_layers is 'two' (str)")):
        load_model(tmp_path / "copy")


@pytest.mark.parametrize("damage", ["truncated file", "missing file"])
def test_damaged_arrays_are_reported_in_one_line(run, tmp_path, damage):
    shutil.copytree(run[0] / "checkpoints" / "3", tmp_path / "copy")
    for file in (tmp_path / "copy" / "params").rglob("d/*"):
        file.write_bytes(file.read_bytes()[:-100]) if damage == "truncated file" else file.unlink()
    with pytest.raises(CheckpointError, match="copy/params: files are missing or damaged") as error:
        load_model(tmp_path / "copy")
    assert "\n" not in str(error.value)


def test_a_missing_autoencoder_is_named(tmp_path):
    flux = AutoencoderConfig(
        kind="flux", base_channels=32, channel_multipliers=(1, 1, 1), latent_channels=8, downsample=4
    )
    model = dataclasses.replace(MODEL, autoencoder=flux)
    write_checkpoint(tmp_path, model=model, params=small_params(model))
    with pytest.raises(CheckpointError, match="checkpoints/3/autoencoder: "):
        load_model(tmp_path)


# The public layout


@pytest.fixture(scope="module")
def public():
    return load_model(REFERENCE)


def test_a_public_directory_is_loaded_in_its_stored_dtypes(public):
    stored = load_public(REFERENCE)
    assert_same(public.params, stored.params)
    assert_same(public.autoencoder_params, stored.autoencoder_params)
    assert public.config == stored.config
    assert isinstance(public.autoencoder, FluxAutoencoder)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves((public.params, public.autoencoder_params)))
    assert public.tokenizer.decode(public.tokenizer.encode("a red heart")) == "a red heart"
    assert public.time_shift == 3.0


def test_the_origin_of_a_public_directory_is_its_resolved_path(monkeypatch):
    monkeypatch.chdir(REFERENCE.parent)
    assert load_model(REFERENCE.name).origin == str(REFERENCE.resolve())


def test_a_dtype_applies_to_the_model_but_not_to_the_autoencoder():
    model = load_model(REFERENCE, dtype="bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(model.params)} == {jnp.dtype(jnp.bfloat16)}
    assert {leaf.dtype for leaf in jax.tree.leaves(model.autoencoder_params)} == {jnp.dtype(jnp.float32)}


def test_public_transforms_stay_within_the_position_tables(public):
    """The published ones are 1024/512/16 and 980/224/14. The tables of this small model are 8 x 8."""
    assert public.vae_transform == ImageTransform(128, 64, 16)
    assert public.vit_transform == ImageTransform(112, 25, 14)


def test_transforms_and_time_shift_of_config_json_take_precedence(tmp_path):
    shutil.copytree(REFERENCE, tmp_path / "copy")
    fields = json.loads((REFERENCE / "config.json").read_text())
    fields["uno_jax"] = {"vae_transform": {"max_side": 96, "min_side": 32, "stride": 16}, "time_shift": 2.0}
    (tmp_path / "copy" / "config.json").write_text(json.dumps(fields))
    model = load_model(tmp_path / "copy")
    assert model.vae_transform == ImageTransform(96, 32, 16)
    assert model.vit_transform == ImageTransform(112, 25, 14)
    assert model.time_shift == 2.0


@pytest.mark.parametrize("value", ["abc", None, True, -1])
def test_an_invalid_time_shift_of_config_json_is_named(tmp_path, value):
    shutil.copytree(REFERENCE, tmp_path / "copy")
    (tmp_path / "copy" / "config.json").write_text(
        json.dumps(json.loads((REFERENCE / "config.json").read_text()) | {"uno_jax": {"time_shift": value}})
    )
    with pytest.raises(CheckpointError, match=f"config.json, uno_jax: time_shift is {value!r}; expected a positive"):
        load_model(tmp_path / "copy")


def test_a_public_directory_has_no_ema_weights(tmp_path):
    with pytest.raises(CheckpointError, match="holds one set of parameters"):
        load_model(REFERENCE, ema=True)


@pytest.mark.parametrize("file", ["vocab.json", "tokenizer_config.json", "ae.safetensors"])
def test_a_missing_file_of_a_public_directory_is_named(tmp_path, file):
    shutil.copytree(REFERENCE, tmp_path / "copy")
    (tmp_path / "copy" / file).unlink()
    with pytest.raises(CheckpointError, match=file):
        load_model(tmp_path / "copy")


@pytest.mark.parametrize("name", ["nothing", "empty"])
def test_a_path_without_a_checkpoint_is_named(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=f"{name}: no checkpoint found"):
        load_model(tmp_path / name)
