"""`uno_jax.convert export`: imported tensors are restored byte for byte, trained ones take the requested dtype."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from tests.helpers.convert_command import fail, succeed
from tests.helpers.damage import put_value, remove_checksums
from tests.helpers.paths import REFERENCE
from tests.helpers.public_tensors import expected_autoencoder_tensors, expected_public_tensors
from tests.helpers.small_checkpoint import MODEL, write_checkpoint
from tests.helpers.small_model import merge_adapters, small_model, small_params
from tests.helpers.small_public import write_public
from tests.helpers.trees import assert_same
from uno_jax.config import to_json
from uno_jax.data.tokenizer_files import TOKENIZER_FILES
from uno_jax.interop.load import load_model
from uno_jax.interop.names import (
    model_tensors,
    uno_tensors,
)
from uno_jax.interop.provenance import saved_provenance
from uno_jax.interop.sizes import model_config_from_directory
from uno_jax.models.config import AutoencoderConfig, VisionConfig
from uno_jax.training.checkpoint_folders import find_checkpoint
from uno_jax.training.checkpoints import Checkpoints
from uno_jax.training.initialise import init_autoencoder
from uno_jax.training.state import ADAPTERS_TRAINABLE, UNO_TRAINABLE, create_state, is_under

FILES = ("ema.safetensors", "ae.safetensors")


def bytes_of(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(directory.iterdir())}


# Imported models


@pytest.fixture(scope="module")
def round_trip(tmp_path_factory):
    """The reference imported, exported and imported again."""
    directory = tmp_path_factory.mktemp("round_trip")
    succeed("import", REFERENCE, directory / "first")
    printed = succeed("export", directory / "first", directory / "exported")
    succeed("import", directory / "exported", directory / "second")
    return directory, printed


def test_import_export_and_import_again_is_the_identity(round_trip):
    first, second = (load_model(round_trip[0] / name) for name in ("first", "second"))
    assert_same(second.params, first.params)
    assert_same(second.autoencoder_params, first.autoencoder_params)
    for name in ("config", "vae_transform", "vit_transform", "time_shift"):
        assert getattr(second, name) == getattr(first, name)
    assert saved_provenance(round_trip[0] / "second").dtypes == saved_provenance(round_trip[0] / "first").dtypes


@pytest.mark.parametrize("name", [*FILES, *TOKENIZER_FILES])
def test_an_untrained_export_has_the_bytes_of_the_import(round_trip, name):
    assert (round_trip[0] / "exported" / name).read_bytes() == (REFERENCE / name).read_bytes()


def test_every_field_of_the_imported_json_files_is_restored(round_trip):
    for name in ("config.json", "llm_config.json", "vit_config.json"):
        stored, exported = (json.loads((path / name).read_text()) for path in (REFERENCE, round_trip[0] / "exported"))
        assert exported | stored == exported


def test_a_second_export_has_the_same_files(round_trip, tmp_path):
    succeed("export", round_trip[0] / "second", tmp_path / "again")
    assert bytes_of(tmp_path / "again") == bytes_of(round_trip[0] / "exported")


def test_export_lists_what_it_wrote(round_trip):
    assert "generation expert                     │     15 │    111,520 │ float32" in round_trip[1]
    for name in ("ema.safetensors", "ae.safetensors", "llm_config.json", "vocab.json"):
        assert f"{round_trip[0] / 'exported' / name}\n" in round_trip[1]
    assert "Not supported by the public implementation" not in round_trip[1]


DTYPES = (np.float32, np.float16, ml_dtypes.bfloat16)


def test_every_tensor_keeps_its_dtype_even_within_a_stack_of_layers(tmp_path):
    source = write_public(tmp_path / "public")
    for file in FILES:
        tensors = load_file(source / file)
        mixed = {name: tensor.astype(DTYPES[i % 3]) for i, (name, tensor) in enumerate(tensors.items())}
        save_file(mixed, source / file, metadata={"format": "pt"})
    succeed("import", source, tmp_path / "imported")
    succeed("export", tmp_path / "imported", tmp_path / "exported")
    for file in FILES:
        assert (tmp_path / "exported" / file).read_bytes() == (source / file).read_bytes()


def test_a_position_table_of_another_machine_is_restored(tmp_path):
    source = write_public(tmp_path / "public")
    tensors = load_file(source / "ema.safetensors")
    tensors["vit_pos_embed.pos_embed"] = np.nextafter(tensors["vit_pos_embed.pos_embed"], np.float32(2))
    save_file(tensors, source / "ema.safetensors", metadata={"format": "pt"})
    succeed("import", source, tmp_path / "imported")
    succeed("export", tmp_path / "imported", tmp_path / "exported")
    assert (tmp_path / "exported" / "ema.safetensors").read_bytes() == (source / "ema.safetensors").read_bytes()


# Trained models


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A bfloat16 directory, and a float32 run from it whose trained parameters and EMA weights have changed."""
    directory = tmp_path_factory.mktemp("trained")
    source = write_public(directory / "public", ml_dtypes.bfloat16)
    succeed("import", source, directory / "imported")
    write_run(directory / "imported", directory / "run", frozen=np.float32)
    return directory


def write_run(imported: Path, workdir: Path, frozen: type) -> None:
    start = load_model(imported)
    flat = flatten_dict(start.params, sep="/")
    for name, leaf in flat.items():
        is_trained = any(is_under(name, prefix) for prefix in UNO_TRAINABLE)
        flat[name] = leaf.astype(jnp.float32) + 1e-3 if is_trained else leaf.astype(frozen)
    save_run(imported, workdir, flat, UNO_TRAINABLE)


def save_run(imported: Path, workdir: Path, flat: dict[str, jax.Array], trainable, **assets: bytes) -> None:
    """Writes the checkpoint of a run from an import. Its EMA weights are the trained parameters plus 1."""
    state = create_state(unflatten_dict(flat, sep="/"), trainable, optax.sgd(1.0), ema=True)
    state = state.replace(ema=jax.tree.map(lambda leaf: leaf + 1, state.ema))
    files = {file.name: file.read_bytes() for file in (imported / "assets").iterdir()}
    del files["commit_success.txt"]  # Orbax writes its own
    files |= saved_provenance(imported).with_trained(trainable).assets() | assets
    checkpoints = Checkpoints(workdir / "checkpoints", keep=1, assets=files)
    checkpoints.save(5, state, {}, autoencoder=load_model(imported).autoencoder_params)
    checkpoints.close()


def trained_names(directory: Path) -> set[str]:
    """Returns the public names of the tensors that UNO trains."""
    entries = model_tensors(model_config_from_directory(directory))
    return {e.public for e in entries if any(is_under("/".join(e.path), prefix) for prefix in UNO_TRAINABLE)}


@pytest.mark.parametrize(("option", "dtype"), [((), "bfloat16"), (("--dtype=float32",), "float32")])
@pytest.mark.parametrize(("ema", "moved"), [((), 1e-3), (("--ema",), 1 + 1e-3)])
def test_trained_tensors_take_the_requested_dtype_and_frozen_ones_keep_their_bytes(
    trained, tmp_path, option, dtype, ema, moved
):
    printed = succeed("export", trained / "run", tmp_path / "out", *option, *ema)
    stored, exported = load_file(trained / "public" / "ema.safetensors"), load_file(tmp_path / "out/ema.safetensors")
    names = trained_names(trained / "public")
    assert stored.keys() == exported.keys()
    for name, tensor in stored.items():
        if name in names:
            step = np.asarray(tensor.astype(np.float32) + np.float32(1e-3))
            expected = (step + np.float32(moved > 1)).astype(dtype)
            assert exported[name].dtype == np.dtype(dtype)
            np.testing.assert_array_equal(exported[name], expected, err_msg=name)
        else:
            assert exported[name].dtype == tensor.dtype
            assert exported[name].tobytes() == tensor.tobytes(), name
    assert (tmp_path / "out/ae.safetensors").read_bytes() == (trained / "public/ae.safetensors").read_bytes()
    assert "differ from the import" not in printed


def test_import_after_export_is_the_identity_for_a_trained_model(trained, tmp_path):
    succeed("export", trained / "run", tmp_path / "out", "--dtype=float32")
    succeed("import", tmp_path / "out", tmp_path / "imported")
    before, after = load_model(trained / "run"), load_model(tmp_path / "imported")
    for (name, leaf), (_, again) in zip(
        flatten_dict(before.params, sep="/").items(), flatten_dict(after.params, sep="/").items(), strict=True
    ):
        np.testing.assert_array_equal(again.astype(leaf.dtype), leaf, err_msg=name)
    assert after.config == before.config


def test_frozen_tensors_that_lost_precision_are_reported(tmp_path):
    succeed("import", write_public(tmp_path / "public", np.float16), tmp_path / "imported")
    write_run(tmp_path / "imported", tmp_path / "run", frozen=jnp.bfloat16)
    printed = succeed("export", tmp_path / "run", tmp_path / "out")
    frozen = len(model_tensors(model_config_from_directory(tmp_path / "public"))) - len(
        trained_names(tmp_path / "public")
    )
    assert f"{frozen} frozen tensors differ from the import" in printed


def test_weights_that_exceed_the_range_of_the_dtype_are_an_error(tmp_path):
    params = small_params(MODEL)
    params["latent_in"]["bias"] = params["latent_in"]["bias"].at[3].set(1e6)
    write_checkpoint(tmp_path / "run", params=params)
    message = fail("export", tmp_path / "run", tmp_path / "out", "--dtype=float16")
    assert "vae2llm.bias: the largest weight, 1e+06, exceeds the range of float16" in message
    succeed("export", tmp_path / "run", tmp_path / "out", "--dtype=bfloat16")


def test_missing_ema_weights_cannot_be_exported(tmp_path):
    write_checkpoint(tmp_path / "run", ema=False)
    assert "the checkpoint has no EMA weights" in fail("export", tmp_path / "run", tmp_path / "out", "--ema")


# Models that the public implementation does not support


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    """A run with the pixel autoencoder and metaqueries, and its export."""
    directory = tmp_path_factory.mktemp("ours")
    write_checkpoint(directory / "run")
    return directory, succeed("export", directory / "run", directory / "exported")


def test_an_export_with_a_pixel_autoencoder_is_reported_as_unsupported(ours):
    directory, printed = ours
    sentence = "its autoencoder is the pixel autoencoder, not FLUX's"
    assert f"Not supported by the public implementation: {sentence}" in printed
    assert json.loads((directory / "exported/config.json").read_text())["uno_jax"]["not_public"] == [sentence]
    assert not (directory / "exported/ae.safetensors").exists()
    before, after = load_model(directory / "run"), load_model(directory / "exported")
    assert_same(after.params, before.params)
    for name in ("config", "vae_transform", "vit_transform", "time_shift"):
        assert getattr(after, name) == getattr(before, name)


def test_an_export_that_predicts_x0_is_reported_as_unsupported(tmp_path):
    model = small_model(decoder={"vocab_size": 640}, prediction="x0")
    write_checkpoint(tmp_path / "run", model=model, params=small_params(model))
    assert "predicts x0, not the velocity" in succeed("export", tmp_path / "run", tmp_path / "out")
    assert load_model(tmp_path / "out").config == model


def test_a_transformer_autoencoder_is_exported_and_read_back(tmp_path):
    sizes = VisionConfig(8, num_layers=2, num_heads=2, mlp_size=12, patch_size=4, table_side=6)
    autoencoder = AutoencoderConfig(
        "transformer", latent_channels=6, downsample=4, scale=2.0, shift=0.5, transformer=sizes
    )
    model = small_model(decoder={"vocab_size": 640}, autoencoder=autoencoder)
    run, params = tmp_path / "run", small_params(model)
    write_checkpoint(run, model=model, params=params, autoencoder=init_autoencoder(model, 3))
    assert "its autoencoder is the transformer autoencoder" in succeed("export", run, tmp_path / "out")
    before, after = load_model(run), load_model(tmp_path / "out")
    assert after.config == before.config
    assert_same(after.autoencoder_params, before.autoencoder_params)
    assert_same(after.autoencoder_params, init_autoencoder(model, 3))


def test_metaqueries_and_their_head_are_in_a_separate_file(ours):
    directory, _ = ours
    config = model_config_from_directory(directory / "exported")
    queries = load_file(directory / "exported/uno.safetensors")
    assert {name: tensor.shape for name, tensor in queries.items()} == {
        entry.public: entry.public_shape for entry in uno_tensors(config)
    }
    params = load_model(directory / "run").params["metaqueries"]
    np.testing.assert_array_equal(queries["metaqueries.table"], params["table"])
    np.testing.assert_array_equal(queries["metaqueries.head.weight"], params["head"]["kernel"].T)
    assert load_file(directory / "exported/ema.safetensors").keys() == expected_public_tensors(config).keys()


@pytest.mark.parametrize("queries", [0, 4])
def test_the_head_of_the_align_loss_is_in_the_same_file(tmp_path, queries):
    model = small_model(decoder={"vocab_size": 640}, num_metaqueries=queries, align_layer=2)
    write_checkpoint(tmp_path / "run", model=model, params=small_params(model))
    succeed("export", tmp_path / "run", tmp_path / "out")
    before, after = load_model(tmp_path / "run"), load_model(tmp_path / "out")
    assert after.config == model
    assert_same(after.params, before.params)
    names = set(load_file(tmp_path / "out/uno.safetensors"))
    assert {name.split(".")[0] for name in names} == {"align_head"} | ({"metaqueries"} if queries else set())


@pytest.mark.parametrize("ema", [(), ("--ema",)])
def test_low_rank_adapters_are_merged_into_their_kernels(tmp_path, ema):
    model = small_model(decoder={"vocab_size": 640, "adapter_rank": 3})
    write_checkpoint(tmp_path / "run", model=model, params=small_params(model), trainable=ADAPTERS_TRAINABLE)
    printed = succeed("export", tmp_path / "run", tmp_path / "out", *ema)
    assert "low-rank adapters of rank 3 have been merged into the kernels" in printed
    before, after = load_model(tmp_path / "run", ema=bool(ema)), load_model(tmp_path / "out")
    expected = flatten_dict(merge_adapters(before.params, model.decoder), sep="/")
    exported = flatten_dict(after.params, sep="/")
    assert exported.keys() == expected.keys()
    for name, leaf in expected.items():
        np.testing.assert_allclose(exported[name], leaf, rtol=1e-6, atol=1e-6 * is_kernel(name), err_msg=name)
    assert after.config == MODEL


def is_kernel(name: str) -> bool:
    return name.startswith("decoder/layers/generation/") and name.endswith("/kernel")


def test_merged_kernels_take_the_requested_dtype_and_others_keep_their_bytes(tmp_path):
    source = write_public(tmp_path / "public", ml_dtypes.bfloat16)
    succeed("import", source, tmp_path / "imported")
    start = load_model(tmp_path / "imported")
    model = dataclasses.replace(start.config, decoder=dataclasses.replace(start.config.decoder, adapter_rank=1))
    flat = flatten_dict(small_params(model), sep="/") | flatten_dict(start.params, sep="/")
    sizes = {"model.json": json.dumps(to_json(model)).encode()}
    save_run(tmp_path / "imported", tmp_path / "run", flat, ADAPTERS_TRAINABLE, **sizes)
    succeed("export", tmp_path / "run", tmp_path / "out", "--dtype=float32")
    stored, exported = load_file(source / "ema.safetensors"), load_file(tmp_path / "out/ema.safetensors")
    widened = {name for name in stored if exported[name].dtype == np.float32}
    kernels = {entry.public for entry in model_tensors(start.config) if is_kernel("/".join(entry.path))}
    trained = {name for name in stored if name.split(".")[0] in ("time_embedder", "vae2llm", "llm2vae")}
    assert widened == kernels | trained
    for name in stored.keys() - widened:
        assert exported[name].tobytes() == stored[name].tobytes()
    for name in kernels:
        assert not np.array_equal(exported[name], stored[name].astype(np.float32))


# Files of the public layout


def test_names_and_shapes_are_exactly_the_public_ones(round_trip):
    directory = round_trip[0] / "exported"
    config = model_config_from_directory(directory)
    expected = expected_public_tensors(config), expected_autoencoder_tensors(config.autoencoder)
    for file, shapes in zip(FILES, expected, strict=True):
        with safe_open(directory / file, "numpy") as opened:
            assert opened.metadata() == {"format": "pt"}
            assert {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()} == shapes  # noqa: SIM118


def test_shards_respect_the_maximum_size_and_load_like_one_file(round_trip, tmp_path):
    succeed("export", round_trip[0] / "first", tmp_path / "out", "--shard_size=200KB")
    shards = sorted((tmp_path / "out").glob("ema-*.safetensors"))
    assert len(shards) > 4
    assert shards[0].name == f"ema-00001-of-{len(shards):05}.safetensors"
    index = json.loads((tmp_path / "out/ema.safetensors.index.json").read_text())
    whole, total = load_file(REFERENCE / "ema.safetensors"), 0
    for shard in shards:
        tensors = load_file(shard)
        size = sum(tensor.nbytes for tensor in tensors.values())
        assert size <= 200_000 or len(tensors) == 1
        for name, tensor in tensors.items():
            assert index["weight_map"][name] == shard.name
            assert tensor.tobytes() == whole.pop(name).tobytes()
        total += size
    assert whole == {}
    assert index["metadata"]["total_size"] == total
    assert not (tmp_path / "out/ema.safetensors").exists()
    assert_same(load_model(tmp_path / "out").params, load_model(REFERENCE).params)


@pytest.mark.parametrize("size", ["large", "5 apples", "-1", "1.2.3"])
def test_an_invalid_shard_size_shows_the_usage(size, capsys):
    with pytest.raises(SystemExit):
        succeed("export", "a", "b", f"--shard_size={size}")
    assert "expected a value such as 5GB, 500MB or 2GiB" in capsys.readouterr().err


# Errors


def test_export_replaces_nothing_without_overwrite(ours, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("precious")
    assert "already exists" in fail("export", ours[0] / "run", tmp_path / "out")
    assert (tmp_path / "out" / "mine").read_text() == "precious"
    assert "is not a checkpoint" in fail("export", ours[0] / "run", tmp_path / "out", "--overwrite")
    assert (tmp_path / "out" / "mine").read_text() == "precious"
    shutil.rmtree(tmp_path / "out")
    shutil.copytree(ours[0] / "exported", tmp_path / "out")
    (tmp_path / "out" / "config.json").write_text("{}")
    succeed("export", ours[0] / "run", tmp_path / "out", "--overwrite")
    assert bytes_of(tmp_path / "out") == bytes_of(ours[0] / "exported")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def lost_array(checkpoint: Path) -> None:
    shutil.rmtree(checkpoint / "params" / "d", ignore_errors=True)
    for folder in (checkpoint / "params").glob("ocdbt.process_*"):
        shutil.rmtree(folder / "d")


def lost_manifest(checkpoint: Path) -> None:
    (checkpoint / "params" / "manifest.ocdbt").unlink()


def cut_short(checkpoint: Path) -> None:
    for file in (checkpoint / "params").rglob("d/*"):
        file.write_bytes(file.read_bytes()[:-100])


def lost_sizes(checkpoint: Path) -> None:
    (checkpoint / "assets" / "model.json").unlink()


def other_sizes(checkpoint: Path) -> None:
    remove_checksums(checkpoint)
    sizes = json.loads((checkpoint / "assets" / "model.json").read_text())
    sizes["decoder"]["mlp_size"] += 4
    (checkpoint / "assets" / "model.json").write_text(json.dumps(sizes))


def small_vocabulary(checkpoint: Path) -> None:
    remove_checksums(checkpoint)
    sizes = json.loads((checkpoint / "assets" / "model.json").read_text())
    sizes["decoder"]["vocab_size"] = 600
    (checkpoint / "assets" / "model.json").write_text(json.dumps(sizes))


def damaged_provenance(checkpoint: Path) -> None:
    remove_checksums(checkpoint)
    (checkpoint / "assets" / "provenance.json").write_text("{")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lost_array, "params: files are missing or damaged"),
        (lost_manifest, "params: files are missing or damaged"),
        (cut_short, "params: files are missing or damaged"),
        (lost_sizes, "model.json"),
        (other_sizes, "gate/kernel is (2, 32, 48) in the checkpoint but (2, 32, 52)"),
        (small_vocabulary, "the tokenizer has 622 ids, but the vocabulary of the model is 600"),
        (damaged_provenance, "provenance.json: not valid JSON"),
    ],
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # from threads that Orbax leaves behind
def test_a_damaged_checkpoint_is_named_and_leaves_nothing_behind(ours, tmp_path, damage, message):
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(find_checkpoint(ours[0] / "run"), checkpoint)
    damage(checkpoint)
    assert message in fail("export", checkpoint, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_a_non_finite_weight_is_named_and_leaves_nothing_behind(tmp_path):
    write_checkpoint(tmp_path / "run")
    put_value(find_checkpoint(tmp_path / "run"), "latent_in/bias", 3, np.nan)
    assert "latent_in/bias contains a non-finite value (nan)" in fail("export", tmp_path / "run", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_public_directory_is_not_exported(tmp_path):
    assert "is already in the public layout" in fail("export", REFERENCE, tmp_path / "out")
