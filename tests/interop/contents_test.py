"""`uno_jax.convert inspect` and `diff`: contents of a checkpoint, and differences of two."""

from __future__ import annotations

import dataclasses
import io
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from safetensors.numpy import load_file, save_file

from tests.helpers.convert_command import fail, succeed
from tests.helpers.damage import put_value, remove_checksums
from tests.helpers.paths import REFERENCE
from tests.helpers.small_checkpoint import MODEL, write_checkpoint
from tests.helpers.small_model import small_model, small_params
from tests.helpers.small_public import write_public
from uno_jax import convert
from uno_jax.interop.compare import difference
from uno_jax.interop.contents import Contents
from uno_jax.interop.source import find_source
from uno_jax.interop.summary import read_parts
from uno_jax.training.checkpoint_folders import find_checkpoint

TRAINED_PARTS = {"generation expert", "latent projections, timestep embedder", "metaqueries and their head"}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A run with EMA weights, and the smallest public directory with its import."""
    directory = tmp_path_factory.mktemp("inspect")
    write_checkpoint(directory / "run")
    write_public(directory / "public")
    succeed("import", directory / "public", directory / "imported")
    return directory


# Inspect


def test_inspect_shows_size_and_hash_of_every_part(directory):
    printed = succeed("inspect", directory / "run")
    digest = read_parts(find_source(directory / "run").contents()).hashes["generation expert"][:16]
    assert f"generation expert                     │     15 │     15,680 │ float32 │  61.25 KiB │ {digest}" in printed
    assert "all                                   │     68 │    101,360 │ float32 │ 395.94 KiB │" in printed


def test_inspect_shows_step_config_and_versions(directory):
    printed = succeed("inspect", directory / "run")
    assert "step: 3\n" in printed
    assert "holds: assets, checksums, data, ema, params, training\n" in printed
    assert f"jax {jax.__version__}" in printed
    assert "trained: decoder/layers/generation, decoder/norm/generation, latent_in" in printed
    assert "imported: nothing\n" in printed
    assert "  model.decoder.hidden_size = 32\n" in printed
    assert "  objective.time_shift = 4.0\n" in printed


def test_inspect_shows_what_was_imported(directory, tmp_path):
    shutil.copytree(directory / "imported", tmp_path / "123")  # a folder named by digits is not a step
    printed = succeed("inspect", tmp_path / "123")
    assert "step: none (a model without training state)\n" in printed
    assert "trained: nothing\n" in printed
    assert "tensors in F32\n" in printed


@pytest.mark.parametrize("name", ["best", "20260101"])
def test_the_step_does_not_depend_on_the_folder_name(directory, tmp_path, name):
    shutil.copytree(find_checkpoint(directory / "run"), tmp_path / name)
    assert "step: 3\n" in succeed("inspect", tmp_path / name)


def test_inspect_of_a_public_directory_shows_its_json_files(directory):
    printed = succeed("inspect", directory / "public")
    assert "layout: public\n" in printed
    assert "  llm_config.json.hidden_size = 8\n" in printed
    assert "  config.json.vae_config.ch_mult = [1]\n" in printed


def test_inspect_lists_every_array_on_request(directory):
    lines = succeed("inspect", directory / "run", "--arrays").splitlines()
    assert ["decoder/layers/generation/gate/kernel", "2 x 32 x 48", "float32"] in [
        [cell.strip() for cell in line.split("│")] for line in lines
    ]


def test_hashes_can_be_skipped(directory):
    assert "sha256" not in succeed("inspect", directory / "run", "--skip_hash")


def test_hashes_do_not_depend_on_the_layout(directory):
    assert read_parts(find_source(directory / "imported").contents()) == read_parts(
        find_source(directory / "public").contents()
    )


def test_a_changed_number_changes_only_the_hash_of_its_part(directory, tmp_path):
    params = small_params(MODEL)
    params["connector"]["fc1"]["bias"] = params["connector"]["fc1"]["bias"].at[1].add(1e-6)
    write_checkpoint(tmp_path / "run", params=params)
    before, after = (read_parts(find_source(path / "run").contents()).hashes for path in (directory, tmp_path))
    assert {part for part in before if before[part] != after[part]} == {"connector"}


@pytest.mark.parametrize(
    "other",
    [("latent_in/b", (2, 3), np.float32), ("latent_in/a", (3, 2), np.float32), ("latent_in/a", (2, 3), np.int32)],
)
def test_a_hash_includes_names_shapes_and_dtypes(other):
    def hash_of(name, shape, dtype):
        leaves = {name: jax.ShapeDtypeStruct(shape, dtype)}
        reader = lambda names: {name: np.zeros(shape, dtype) for name in names}  # noqa: E731
        return read_parts(Contents(where=Path(), leaves=leaves, read=reader, public=True))

    assert hash_of(*other) != hash_of("latent_in/a", (2, 3), np.float32)


def test_ema_weights_replace_the_trained_parameters(directory):
    before, after = (read_parts(find_source(directory / "run").contents(ema=ema)).hashes for ema in (False, True))
    assert {part for part in before if before[part] != after[part]} == TRAINED_PARTS


def test_a_path_without_a_checkpoint_is_named(tmp_path):
    assert f"{tmp_path}: no checkpoint found" in fail("inspect", tmp_path)


def test_a_failed_diff_has_its_own_exit_status(directory, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit:
        succeed("diff", directory / "run", tmp_path)
    assert exit.value.code == 2
    assert f"CheckpointError: {tmp_path}: no checkpoint found" in capsys.readouterr().err


@pytest.fixture(scope="module")
def diverged(tmp_path_factory):
    """A run and a public directory, each with one NaN weight."""
    directory = tmp_path_factory.mktemp("diverged")
    write_checkpoint(directory / "run")
    put_value(find_checkpoint(directory / "run"), "connector/fc1/bias", 1, np.inf)
    write_public(directory / "public")
    tensors = load_file(directory / "public" / "ema.safetensors")
    tensors["connector.fc1.bias"][1] = np.nan
    save_file(tensors, directory / "public" / "ema.safetensors")
    return directory


@pytest.mark.parametrize("layout", ["run", "public"])
def test_inspect_shows_non_finite_weights(diverged, layout):
    printed = succeed("inspect", diverged / layout)
    rows = cells(printed)
    assert {part for part, row in rows.items() if "(not finite)" in row[-1]} == {"connector"}
    assert "not finite: connector/fc1/bias\n" in printed


@pytest.mark.parametrize("layout", ["run", "public"])
def test_diff_shows_non_finite_weights(directory, diverged, layout):
    printed = differ(diverged / layout, directory / layout)
    assert cells(printed)["connector"][:2] == ["4", "1"]
    assert cells(printed)["connector"][2] in ("inf", "nan")
    assert cells(printed)["vision encoder"][1] == "same"
    assert "connector/fc1/bias is not finite in the first\n" in printed


def test_unknown_parameters_are_named(tmp_path):
    write_checkpoint(tmp_path / "run", params={**small_params(MODEL), "lora": {"kernel": jnp.ones(3)}})
    assert "unknown parameters: lora/kernel" in fail("inspect", tmp_path / "run")


def test_low_rank_adapters_are_a_separate_part(directory, tmp_path):
    model = small_model(decoder={"vocab_size": 640, "adapter_rank": 3})
    write_checkpoint(tmp_path / "run", model=model, params=small_params(model))
    assert cells(succeed("inspect", tmp_path / "run", "--skip_hash"))["low-rank adapters"][0] == "14"
    printed = differ(directory / "run", tmp_path / "run")
    assert "decoder/layers/generation/adapters/query/down/kernel [2, 32, 3] is in the second only" in printed
    assert cells(printed)["generation expert"][1] == "same"


@given(sizes=st.lists(st.integers(1, 9), max_size=12), most=st.integers(4, 60))
def test_arrays_are_read_in_order_and_few_at_a_time(sizes, most):
    arrays = {str(i): np.full(size, i, np.float32) for i, size in enumerate(sizes)}
    read: list[int] = []

    def reader(names):
        read.append(sum(arrays[name].nbytes for name in names))
        assert read[-1] <= most or len(names) == 1
        return {name: arrays[name] for name in names}

    leaves = {name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in arrays.items()}
    contents = Contents(where=Path(), leaves=leaves, read=reader)
    seen = list(contents.arrays(arrays, batch_bytes=most))
    assert [name for name, _ in seen] == list(arrays)
    for name, array in seen:
        np.testing.assert_array_equal(array, arrays[name])
    assert sum(read) == sum(array.nbytes for array in arrays.values())


# Diff


def differ(*arguments: str | Path) -> str:
    """Returns the output of `diff` for two checkpoints that differ (exit status 1)."""
    console = Console(file=io.StringIO(), width=120)
    with pytest.raises(SystemExit) as exit:
        convert.main(["diff", *map(str, arguments)], console)
    assert exit.value.code == 1
    return console.file.getvalue()


def cells(printed: str) -> dict[str, list[str]]:
    """Returns the rows of the tables by their first cells."""
    rows = [[cell.strip() for cell in line.split("│")] for line in printed.splitlines() if "│" in line]
    return {row[0]: row[1:] for row in rows}


def test_a_checkpoint_equals_the_public_directory_of_its_import(directory):
    rows = cells(succeed("diff", directory / "public", directory / "imported"))
    assert rows["generation expert"] == ["15", "same", "", "", "float32"]
    assert rows["all"][1] == "same"


def test_parts_that_differ_are_shown_with_their_distance(directory, tmp_path):
    params = small_params(MODEL)
    kernel = np.asarray(params["connector"]["fc1"]["kernel"])
    params["connector"]["fc1"]["kernel"] = params["connector"]["fc1"]["kernel"].at[2, 1].add(0.5)
    write_checkpoint(tmp_path / "run", params=params)
    rows = cells(differ(directory / "run", tmp_path / "run", "--arrays"))
    norm = np.sqrt(sum(np.square(leaf).sum() for leaf in jax.tree.leaves(small_params(MODEL)["connector"])))
    assert rows["connector"] == ["4", "1", "0.5", f"{0.5 / norm:.3g}", "float32"]
    assert rows["connector/fc1/kernel"] == ["0.5", f"{0.5 / np.linalg.norm(kernel):.3g}", "float32"]
    assert rows["vision encoder"][1] == "same"
    assert rows["all"][:2] == ["68", "1"]


def test_equal_numbers_are_the_same_in_different_dtypes(tmp_path):
    narrow, wide = write_public(tmp_path / "narrow", ml_dtypes.bfloat16), write_public(tmp_path / "wide")
    succeed("import", narrow, tmp_path / "imported")
    rows = cells(differ(narrow, wide))
    assert rows["connector"][1] == "4"
    assert rows["connector"][4] == "bfloat16 / float32"
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), small_params(MODEL))
    write_checkpoint(tmp_path / "first", params=params)
    write_checkpoint(tmp_path / "second", params=jax.tree.map(lambda x: x.astype(jnp.float32), params))
    rows = cells(succeed("diff", tmp_path / "first", tmp_path / "second"))
    assert rows["connector"] == ["4", "same", "", "", "bfloat16 / float32"]


def test_missing_arrays_and_different_shapes_are_named(directory):
    printed = differ(directory / "run", directory / "imported")
    assert "metaqueries/table [4, 32] is in the first only" in printed
    assert "autoencoder/encoder/conv_in/bias [32] is in the second only" in printed
    assert "latent_in/bias is [32] in the first and [8] in the second" in printed


def test_config_fields_that_differ_are_shown(directory, tmp_path):
    write_checkpoint(tmp_path / "run", model=dataclasses.replace(MODEL, compute_dtype="bfloat16"))
    printed = succeed("diff", directory / "run", tmp_path / "run")
    assert '  model.compute_dtype: "float32" / "bfloat16"\n' in printed
    assert "hidden_size" not in printed


@pytest.mark.parametrize(("which", "same"), [("both", True), ("second", False), ("first", False)])
def test_ema_weights_can_be_compared_with_the_parameters(directory, which, same):
    command = (directory / "run", directory / "run", f"--ema={which}")
    rows = cells(succeed("diff", *command) if same else differ(*command))
    assert {part for part, row in rows.items() if row[1].isdigit()} - {"all"} == (set() if same else TRAINED_PARTS)


@given(data=st.data(), chunk=st.integers(1, 8))
def test_differences_do_not_depend_on_the_chunk_size(data, chunk):
    numbers = st.lists(st.floats(-4, 4, width=16), min_size=6, max_size=6)
    a, b = (np.asarray(data.draw(numbers), np.float32).reshape(2, 3) for _ in range(2))
    found = difference("a", a, b, chunk)
    assert found.same == np.array_equal(a.view(np.uint32), b.view(np.uint32))
    assert found.largest == np.abs(a - b).max()
    np.testing.assert_allclose(found.squares, np.square(a - b).sum(), rtol=1e-5)
    np.testing.assert_allclose(found.first_squares, np.square(a).sum(), rtol=1e-5)


def test_the_sign_of_zero_is_a_difference():
    found = difference("a", np.zeros(3, np.float32), np.asarray([0, -0.0, 0], np.float32))
    assert (found.same, found.largest) == (False, 0)


def test_the_reference_equals_itself():
    assert cells(succeed("diff", REFERENCE, REFERENCE))["all"][1] == "same"


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("config.json", '{"a": 1', "config.json: not valid JSON"),
        pytest.param("config.json", "[" * 100_000, "config.json: not valid JSON", id="nested"),
        ("config.json", "[]", "config.json: expected a JSON object, found list"),
        ("versions.json", "[]", "versions.json: expected a JSON object, found list"),
        ("provenance.json", '{"trained": 3}', "provenance.json: trained is 3; expected a list"),
        ("provenance.json", '{"trained": [], "json": {"config.json": 1}}', "config.json is 1; expected a JSON object"),
        ("provenance.json", '{"trained": [], "dtypes": {"a": "F99"}}', "expected F32, F16, BF16\n  a is 'F99'"),
    ],
)
def test_a_damaged_json_file_is_named(directory, tmp_path, file, text, message):
    shutil.copytree(find_checkpoint(directory / "run"), tmp_path / "copy")
    remove_checksums(tmp_path / "copy")
    (tmp_path / "copy" / "assets" / file).write_text(text)
    assert message in fail("inspect", tmp_path / "copy", "--skip_hash")
