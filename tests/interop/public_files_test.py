"""Checkpoints in the public layout: tensor names, strict loading, sizes from JSON files."""

import json
from math import prod

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from tests.helpers.paths import REFERENCE, TESTDATA
from tests.helpers.public_model import load_public
from tests.helpers.public_tensors import expected_autoencoder_tensors, expected_public_tensors
from tests.helpers.small_public import DECODER_JSON, TOP_JSON, VISION_JSON, tensors_of, write_json, write_public
from uno_jax.batch import BatchShape, padding_batch
from uno_jax.interop.names import (
    autoencoder_tensors,
    fixed_tables,
    leaf_shape,
    leaves,
    model_tensors,
)
from uno_jax.interop.sizes import model_config_from_directory
from uno_jax.models.autoencoder import make_autoencoder
from uno_jax.models.config import AutoencoderConfig, DecoderConfig, ModelConfig, VisionConfig
from uno_jax.models.unified import UnifiedModel
from uno_jax.process.errors import CheckpointError, say

BAGEL_7B = ModelConfig(num_metaqueries=0)


@pytest.fixture
def directory(tmp_path):
    """A public-layout directory of the smallest model."""
    return write_public(tmp_path / "public")


def rewrite(directory, change, file="ema.safetensors"):
    """Applies `change` to the tensors of a file."""
    tensors = load_file(directory / file)
    change(tensors)
    save_file(tensors, directory / file)


# The published sizes


@pytest.fixture(scope="module")
def published():
    return json.loads((TESTDATA / "bagel_7b_mot_tensors.json").read_text())


def test_the_7b_config_expects_exactly_the_published_tensors(published):
    expected = {name: tuple(shape) for name, shape in published["ema.safetensors"].items()}
    assert expected_public_tensors(BAGEL_7B) == expected
    assert len(expected) == 1223


def test_the_published_autoencoder_has_exactly_the_published_tensors(published):
    expected = {name: tuple(shape) for name, shape in published["ae.safetensors"].items()}
    assert expected_autoencoder_tensors(BAGEL_7B.autoencoder) == expected
    assert len(expected) == 244


def test_published_parameter_counts():
    sizes = {name: prod(shape) for name, shape in expected_public_tensors(BAGEL_7B).items()}
    assert round(sum(sizes.values()) / 1e9, 3) == 14.607
    assert round(sum(size for name, size in sizes.items() if "moe_gen" in name) / 1e9, 3) == 6.526
    assert round(sum(size for name, size in sizes.items() if name.startswith("vit_model")) / 1e9, 3) == 0.403
    autoencoder = expected_autoencoder_tensors(BAGEL_7B.autoencoder)
    assert round(sum(map(prod, autoencoder.values())) / 1e6, 1) == 83.8


def shapes_of_init(config):
    """Returns the parameter shapes of `UnifiedModel` by abstract evaluation, without allocation."""

    def floats(*shape):
        return jax.ShapeDtypeStruct((1, *shape), jnp.float32)

    pixels = 3 * config.vision.patch_size**2
    batch = padding_batch(BatchShape(1, 1, 1, 1, 0, 1, pixels, 2 * config.latent_size))
    variables = jax.eval_shape(
        UnifiedModel(config).init, jax.random.key(0), batch, floats(1, config.latent_size), floats(1)
    )
    return {path: leaf.shape for path, leaf in flatten_dict(variables["params"]).items()}


def test_the_7b_model_has_exactly_the_leaves_that_the_names_fill():
    named = {path: leaf_shape(entries) for path, entries in leaves(model_tensors(BAGEL_7B)).items()}
    assert shapes_of_init(BAGEL_7B) == named


def test_the_published_autoencoder_has_exactly_the_leaves_that_the_names_fill():
    config = BAGEL_7B.autoencoder
    image = jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)
    variables = jax.eval_shape(make_autoencoder(config).init, jax.random.key(0), image)
    shapes = {path: leaf.shape for path, leaf in flatten_dict(variables["params"]).items()}
    assert shapes == {path: leaf_shape(entries) for path, entries in leaves(autoencoder_tensors(config)).items()}


# Loading


@pytest.mark.parametrize("file", ["ema.safetensors", "ae.safetensors"])
def test_every_stored_tensor_is_in_our_tree(file):
    checkpoint = load_public(REFERENCE)
    stored = load_file(REFERENCE / file)
    if file == "ema.safetensors":
        entries, params = model_tensors(checkpoint.config), checkpoint.params
    else:
        entries, params = autoencoder_tensors(checkpoint.config.autoencoder), checkpoint.autoencoder_params
    flat = jax.device_get(flatten_dict(params))
    for entry in entries:
        leaf = flat[entry.path] if entry.layer is None else flat[entry.path][entry.layer]
        np.testing.assert_array_equal(entry.to_public(np.asarray(leaf)), stored.pop(entry.public))
    assert set(stored) <= {table.public for table in fixed_tables(checkpoint.config)}


def test_all_missing_unexpected_and_misshapen_tensors_are_named_in_one_error(directory):
    def change(tensors):
        del tensors["vae2llm.bias"]
        del tensors["connector.fc1.weight"]
        tensors["lora.weight"] = np.zeros(3, np.float32)
        tensors["llm2vae.bias"] = np.zeros(7, np.float32)

    rewrite(directory, change)
    rewrite(directory, lambda tensors: tensors.pop("encoder.conv_in.bias"), "ae.safetensors")
    with pytest.raises(CheckpointError) as raised:
        load_public(directory)
    message = str(raised.value)
    assert "ema.safetensors: missing tensor vae2llm.bias, shape [8]" in message
    assert "ema.safetensors: missing tensor connector.fc1.weight, shape [8, 4]" in message
    assert "ema.safetensors: unexpected tensor lora.weight, shape [3]" in message
    assert "ema.safetensors: tensor llm2vae.bias has shape [7], expected [4]" in message
    assert "ae.safetensors: missing tensor encoder.conv_in.bias, shape [32]" in message
    assert len(message.splitlines()) == 6


def test_an_error_names_the_first_20_problems_and_counts_the_rest(directory):
    rewrite(directory, lambda tensors: tensors.update({f"lora.{i}": np.zeros(1, np.float32) for i in range(23)}))
    with pytest.raises(CheckpointError) as raised:
        load_public(directory)
    lines = str(raised.value).splitlines()
    assert len(lines) == 22
    assert all("ema.safetensors: unexpected tensor lora." in line for line in lines[1:21])
    assert lines[21] == "  and 3 more"


def test_a_tensor_of_an_unsupported_dtype_is_named(directory):
    rewrite(directory, lambda tensors: tensors.update({"vae2llm.bias": np.zeros(8, np.int32)}))
    with pytest.raises(CheckpointError, match=r"vae2llm\.bias is I32, expected one of F32, F16, BF16"):
        load_public(directory)


@pytest.mark.parametrize("file", ["ema.safetensors", "ae.safetensors"])
def test_a_missing_file_is_named(directory, file):
    (directory / file).unlink()
    with pytest.raises(CheckpointError, match=file):
        load_public(directory)


def test_the_shards_of_the_model_do_not_replace_a_missing_autoencoder(directory):
    shard(directory, "model.safetensors.index.json")
    (directory / "ae.safetensors").unlink()
    with pytest.raises(
        CheckpointError, match=r"found neither ae\.safetensors nor an index of its shards, ae\.safetensors\.index\.json"
    ):
        load_public(directory)


def test_a_missing_directory_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="nowhere: no such directory"):
        load_public(tmp_path / "nowhere")


@settings(max_examples=25)
@given(fraction=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_named(tmp_path_factory, fraction):
    directory = tmp_path_factory.mktemp("cut")
    write_json(directory)
    save_file(tensors_of(model_config_from_directory(directory)), directory / "ema.safetensors")
    whole = (directory / "ema.safetensors").read_bytes()
    (directory / "ema.safetensors").write_bytes(whole[: int(fraction * len(whole))])
    with pytest.raises(CheckpointError, match=r"ema\.safetensors: incomplete or damaged safetensors file"):
        load_public(directory)


@pytest.mark.parametrize("table", ["latent_pos_embed.pos_embed", "vit_pos_embed.pos_embed"])
def test_a_position_table_that_differs_from_the_computed_one_is_named(directory, table):
    def change(tensors):
        tensors[table][1, 2] += 0.01

    rewrite(directory, change)
    with pytest.raises(CheckpointError, match=rf"{table}: row 1, feature 2 is"):
        load_public(directory)


def test_a_position_table_of_nan_is_named(directory):
    rewrite(directory, lambda tensors: tensors["vit_pos_embed.pos_embed"].fill(np.nan))
    with pytest.raises(CheckpointError, match=r"vit_pos_embed\.pos_embed"):
        load_public(directory)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_stored_dtypes_are_kept_by_default(directory, dtype):
    config = model_config_from_directory(directory)
    save_file(tensors_of(config, dtype), directory / "ema.safetensors")

    def trainable_in_float32(path):
        return jnp.float32 if "generation" in path else None

    flat = flatten_dict(load_public(directory, dtype=trainable_in_float32).params)
    for path, leaf in flat.items():
        assert leaf.dtype == (np.float32 if "generation" in path else dtype), path
    stored = load_file(directory / "ema.safetensors")
    name = "language_model.model.layers.1.mlp_moe_gen.up_proj.weight"
    up = flat["decoder", "layers", "generation", "up", "kernel"]
    np.testing.assert_array_equal(up[1], stored[name].T.astype(np.float32))


def test_paths_of_the_autoencoder_have_their_own_prefix(directory):
    checkpoint = load_public(directory, dtype=lambda path: jnp.bfloat16 if path[0] == "autoencoder" else None)
    assert {leaf.dtype for leaf in jax.tree.leaves(checkpoint.autoencoder_params)} == {jnp.dtype(jnp.bfloat16)}
    assert {leaf.dtype for leaf in jax.tree.leaves(checkpoint.params)} == {np.dtype(np.float32)}


def shard(directory, index="ema.safetensors.index.json"):
    """Splits `ema.safetensors` into two shards with an index."""
    tensors = load_file(directory / "ema.safetensors")
    weight_map = {name: f"part-{number % 2}.safetensors" for number, name in enumerate(sorted(tensors))}
    for file in set(weight_map.values()):
        save_file({name: tensors[name] for name in tensors if weight_map[name] == file}, directory / file)
    (directory / index).write_text(json.dumps({"weight_map": weight_map}))
    (directory / "ema.safetensors").unlink()


@pytest.mark.parametrize("index", ["ema.safetensors.index.json", "model.safetensors.index.json"])
def test_shards_load_like_the_single_file(directory, index):
    whole = load_public(directory).params
    shard(directory, index)
    jax.tree.map(np.testing.assert_array_equal, load_public(directory).params, whole)


def test_a_missing_shard_is_named(directory):
    shard(directory)
    (directory / "part-1.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"missing shards in .*: part-1\.safetensors"):
        load_public(directory)


def test_a_tensor_missing_from_its_shard_is_named(directory):
    shard(directory)
    rewrite(directory, lambda tensors: tensors.pop("vit_pos_embed.pos_embed", None), "part-0.safetensors")
    rewrite(directory, lambda tensors: tensors.pop("vit_pos_embed.pos_embed", None), "part-1.safetensors")
    with pytest.raises(CheckpointError, match=r"(?s)not in the indexed shard.* vit_pos_embed\.pos_embed"):
        load_public(directory)


@pytest.mark.parametrize("outside", ["../part-0.safetensors", "/etc/part-0.safetensors", "a/../../b.safetensors"])
def test_an_index_cannot_name_files_outside_of_its_folder(directory, outside):
    shard(directory)
    (directory / "ema.safetensors.index.json").write_text(json.dumps({"weight_map": {"vae2llm.bias": outside}}))
    with pytest.raises(CheckpointError, match=r"index\.json: '.*' is outside of the folder"):
        load_public(directory)


def test_a_single_file_of_another_name_is_read_with_a_note(directory, capsys):
    whole = load_public(directory).params
    (directory / "ema.safetensors").rename(directory / "model.safetensors")
    say.cache_clear()
    jax.tree.map(np.testing.assert_array_equal, load_public(directory).params, whole)
    note = f"note: {directory / 'model.safetensors'} is read, because there is no ema.safetensors\n"
    assert capsys.readouterr().err == note  # once
    (directory / "model.safetensors").rename(directory / "weights.safetensors")
    with pytest.raises(CheckpointError, match=r"found neither ema\.safetensors .*; there are .*weights\.safetensors"):
        load_public(directory)


def test_a_prefix_of_all_tensor_names_is_ignored_with_a_note(directory, capsys):
    whole = load_public(directory).params
    tensors = load_file(directory / "ema.safetensors")
    save_file({f"module.{name}": tensor for name, tensor in tensors.items()}, directory / "ema.safetensors")
    say.cache_clear()
    jax.tree.map(np.testing.assert_array_equal, load_public(directory).params, whole)
    assert "the prefix 'module.' of all tensor names is ignored" in capsys.readouterr().err


def test_tensors_of_another_model_are_said_to_be_that(directory):
    save_file({f"blocks.{i}.weight": np.zeros(1, np.float32) for i in range(9)}, directory / "ema.safetensors")
    with pytest.raises(CheckpointError, match=r"has 9 tensors of another model, such as blocks\.0\.weight, blocks\.1"):
        load_public(directory)


@pytest.mark.parametrize(
    ("decoder", "vision", "message"),
    [
        ({"num_hidden_layers": 3}, {}, r"has 2 layers, but num_hidden_layers of llm_config\.json gives 3"),
        ({}, {"num_hidden_layers": 5}, r"has 2 layers, but num_hidden_layers of vit_config\.json gives 4 \(without"),
    ],
)
def test_another_number_of_layers_than_in_the_file_is_refused(directory, decoder, vision, message):
    write_json(directory, decoder=DECODER_JSON | decoder, vision=VISION_JSON | vision)
    with pytest.raises(CheckpointError, match=message):
        load_public(directory)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"weight_map": 3}', "[" * 100_000], ids=range(5))
def test_a_broken_index_is_named(directory, text):
    shard(directory)
    (directory / "ema.safetensors.index.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"ema\.safetensors\.index\.json"):
        load_public(directory)


# Sizes


def test_a_directory_without_json_files_has_the_published_sizes(tmp_path):
    assert model_config_from_directory(tmp_path) == BAGEL_7B


def test_sizes_come_from_the_json_files(directory):
    assert model_config_from_directory(directory) == ModelConfig(
        decoder=DecoderConfig(
            hidden_size=8, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=4, mlp_size=12, vocab_size=640
        ),
        vision=VisionConfig(hidden_size=4, num_layers=2, num_heads=2, mlp_size=6, patch_size=2, table_side=2),
        autoencoder=AutoencoderConfig(
            base_channels=32, channel_multipliers=(1,), num_residual_blocks=1, latent_channels=1, downsample=1
        ),
        max_latent_size=2,
        num_metaqueries=0,
    )


def test_the_vision_tower_has_one_layer_fewer_than_its_json_says(tmp_path):
    write_json(tmp_path, decoder=None, vision={"num_hidden_layers": 27}, top=None)
    assert model_config_from_directory(tmp_path).vision.num_layers == 26


def test_fields_that_the_public_loader_overrides_are_not_read(directory):
    expected = model_config_from_directory(directory)
    overridden = {"qk_norm": False, "tie_word_embeddings": True, "layer_module": "Qwen2DecoderLayer"}
    write_json(directory, decoder={**DECODER_JSON, **overridden}, vision={**VISION_JSON, "rope": True})
    assert model_config_from_directory(directory) == expected


def test_sections_of_config_json_replace_missing_files(directory):
    expected = model_config_from_directory(directory)
    write_json(directory, top={**TOP_JSON, "llm_config": DECODER_JSON, "vit_config": VISION_JSON})
    (directory / "llm_config.json").unlink()
    (directory / "vit_config.json").unlink()
    assert model_config_from_directory(directory) == expected


@pytest.mark.parametrize("field", ["max_latent_size", "vae_config"])
def test_a_missing_field_of_config_json_has_its_published_value(directory, field):
    write_json(directory, top={name: value for name, value in TOP_JSON.items() if name != field})
    config = model_config_from_directory(directory)
    if field == "vae_config":
        assert config.autoencoder == BAGEL_7B.autoencoder
    else:
        assert config.max_latent_size == BAGEL_7B.max_latent_size


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"decoder": {"hidden_size": "big"}}, r"llm_config\.json: hidden_size is 'big'; expected a positive integer"),
        ({"decoder": {"rope_theta": None}}, r"llm_config\.json: rope_theta is None; expected a positive number"),
        ({"decoder": {"rope_theta": float("nan")}}, r"llm_config\.json: rope_theta is nan"),
        ({"decoder": {"rms_norm_eps": -1e-6}}, r"llm_config\.json: rms_norm_eps is -1e-06"),
        ({"vision": {**VISION_JSON, "layer_norm_eps": 0}}, r"vit_config\.json: layer_norm_eps is 0"),
        ({"decoder": {**DECODER_JSON, "num_key_value_heads": 3}}, r"llm_config\.json: num_attention_heads 2"),
        ({"decoder": {**DECODER_JSON, "hidden_size": 9}}, r"llm_config\.json: hidden_size 9"),
        (
            {"decoder": {**DECODER_JSON, "hidden_size": 6, "num_attention_heads": 3}},
            r"llm_config\.json: hidden_size is 6",
        ),
        ({"decoder": {"hidden_act": "relu"}}, r"llm_config\.json: hidden_act is 'relu'"),
        ({"decoder": {"use_sliding_window": True}}, r"llm_config\.json: use_sliding_window is True; only False"),
        (
            {"decoder": {"rope_scaling": {"type": "yarn", "factor": 4.0}}},
            r"llm_config\.json: rope_scaling is \{'type': 'y",
        ),
        ({"decoder": {"rope_parameters": {"rope_type": "linear"}}}, r"llm_config\.json: rope_parameters is"),
        ({"decoder": {"rope_parameters": {"rope_theta": 9.0}, "rope_theta": 8.0}}, r"rope_parameters is"),
        ({"decoder": {"layer_types": ["sliding_attention"]}}, r"llm_config\.json: layer_types is"),
        ({"decoder": {"num_hidden_layers": 10**9}}, r"num_hidden_layers is 1000000000; expected .* at most 1000"),
        ({"decoder": {"rope_theta": 10**400}}, r"llm_config\.json: rope_theta is 1000"),
        ({"top": {**TOP_JSON, "vae_config": {"num_res_blocks": 10**9}}}, r"num_res_blocks is 1000000000"),
        ({"top": {**TOP_JSON, "vae_config": {"ch_mult": [1] * 50}}}, r"expected a list of at most 10 integers"),
        ({"vision": {**VISION_JSON, "hidden_size": 5}}, r"vit_config\.json: hidden_size 5"),
        ({"vision": {**VISION_JSON, "num_hidden_layers": 1}}, r"vit_config\.json: num_hidden_layers is 1"),
        ({"vision": {**VISION_JSON, "image_size": 6}}, r"side 3, but vit_max_num_patch_per_side of .* is 2"),
        ({"top": {**TOP_JSON, "vae_config": {"ch_mult": [1, 0]}}}, r"config\.json, vae_config: ch_mult is \[1, 0\]"),
        ({"top": {**TOP_JSON, "vae_config": {"downsample": 4}}}, r"config\.json, vae_config: downsample is 4"),
        ({"top": {**TOP_JSON, "vae_config": {"ch": 48}}}, r"config\.json, vae_config: ch 48 times ch_mult"),
        ({"top": {**TOP_JSON, "vae_config": 3}}, r"config\.json: vae_config is 3; expected a JSON object"),
        ({"top": [1]}, r"config\.json: expected a JSON object, found list"),
    ],
)
def test_invalid_sizes_are_named_with_file_and_field(tmp_path, files, message):
    write_json(tmp_path, **files)
    with pytest.raises(CheckpointError, match=message):
        model_config_from_directory(tmp_path)


def test_an_invalid_json_file_is_named(tmp_path):
    (tmp_path / "llm_config.json").write_text("{hidden")
    with pytest.raises(CheckpointError, match=r"llm_config\.json: not valid JSON"):
        model_config_from_directory(tmp_path)
