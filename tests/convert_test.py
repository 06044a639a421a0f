"""The command `uno_jax.convert`: imports and its errors."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.helpers.convert_command import fail, succeed
from tests.helpers.paths import REFERENCE, ROOT
from tests.helpers.small_public import write_public
from tests.helpers.trees import assert_same
from uno_jax import convert
from uno_jax.interop.load import load_model
from uno_jax.training.checkpoint_folders import find_checkpoint, read_asset

# Import


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """The imported reference, and the output of the command."""
    destination = tmp_path_factory.mktemp("convert") / "imported"
    return destination, succeed("import", REFERENCE, destination)


def test_an_import_loads_like_its_source(imported):
    checkpoint, public = load_model(imported[0]), load_model(REFERENCE)
    assert_same(checkpoint.params, public.params)
    assert_same(checkpoint.autoencoder_params, public.autoencoder_params)
    for name in ("config", "vae_transform", "vit_transform", "time_shift"):
        assert getattr(checkpoint, name) == getattr(public, name)
    assert find_checkpoint(imported[0]) == imported[0]


def test_import_lists_what_it_read_by_part(imported):
    assert "generation expert                     │     15 │    111,520 │ float32" in imported[1]
    assert "all                                   │    241 │  1,681,971 │ float32" in imported[1]
    assert "tokenizer: 622 ids, vocabulary of 640\n" in imported[1]


def test_an_import_records_the_versions_that_wrote_it(imported):
    versions = json.loads(read_asset(imported[0], "versions.json"))
    assert versions["jax"] == jax.__version__
    assert {"uno_jax", "flax", "orbax-checkpoint", "python"} <= versions.keys()


def test_import_replaces_nothing_without_overwrite(imported, tmp_path):
    shutil.copytree(imported[0], tmp_path / "old")
    assert "already exists" in fail("import", REFERENCE, tmp_path / "old")
    write_public(tmp_path / "public")
    succeed("import", tmp_path / "public", tmp_path / "old", "--overwrite")
    assert load_model(tmp_path / "old").config.decoder.hidden_size == 8


def truncated(directory: Path) -> None:
    whole = (directory / "ema.safetensors").read_bytes()
    (directory / "ema.safetensors").write_bytes(whole[:-1])


def wrong_header(directory: Path) -> None:
    whole = (directory / "ema.safetensors").read_bytes()
    (directory / "ema.safetensors").write_bytes(whole[:8] + b"?" + whole[9:])


def missing_shard(directory: Path) -> None:
    tensors = load_file(directory / "ema.safetensors")
    (directory / "ema.safetensors").unlink()
    weight_map = dict.fromkeys(tensors, "ema-00001-of-00002.safetensors")
    weight_map["vae2llm.bias"] = "ema-00002-of-00002.safetensors"
    save_file(tensors, directory / "ema-00001-of-00002.safetensors")
    (directory / "ema.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def not_a_number(directory: Path) -> None:
    tensors = load_file(directory / "ema.safetensors")
    tensors["vae2llm.weight"][3, 1] = np.nan
    save_file(tensors, directory / "ema.safetensors")


def small_vocabulary(directory: Path) -> None:
    fields = json.loads((directory / "llm_config.json").read_text())
    (directory / "llm_config.json").write_text(json.dumps({**fields, "vocab_size": 600}))


def half_the_merges(directory: Path) -> None:
    lines = (directory / "merges.txt").read_text().splitlines(keepends=True)
    (directory / "merges.txt").write_text("".join(lines[: len(lines) // 2]))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncated, "ema.safetensors: incomplete or damaged safetensors file"),
        (wrong_header, "ema.safetensors: incomplete or damaged safetensors file"),
        (missing_shard, ": ema-00002-of-00002.safetensors"),
        (not_a_number, "ema.safetensors: tensor vae2llm.weight contains a non-finite value (nan)"),
        (small_vocabulary, "the tokenizer has 622 ids, but the vocabulary of the model is 600"),
        (half_the_merges, "merges.txt: no merge makes 173 tokens of vocab.json"),
    ],
)
def test_damaged_input_is_named_and_leaves_nothing_behind(tmp_path, damage, message):
    source = write_public(tmp_path / "public")
    damage(source)
    assert message in fail("import", source, tmp_path / "imported")
    assert [path.name for path in tmp_path.iterdir()] == ["public"]


def without_vision_delimiters(directory: Path) -> None:
    file = directory / "tokenizer_config.json"
    added = json.loads(file.read_text())["added_tokens_decoder"]
    kept = {id_: token for id_, token in added.items() if int(id_) < 603}
    file.write_text(json.dumps({"added_tokens_decoder": kept}))


def test_delimiters_that_a_tokenizer_lacks_get_the_next_free_ids_as_in_the_original(tmp_path):
    source = write_public(tmp_path / "public")
    without_vision_delimiters(source)
    printed = succeed("import", source, tmp_path / "imported")
    added = "(not listed in its files, and added after all others: <|vision_start|> 603, <|vision_end|> 604)"
    assert f"tokenizer: 605 ids {added}, vocabulary of 640" in printed
    fields = json.loads((source / "llm_config.json").read_text())
    (source / "llm_config.json").write_text(json.dumps({**fields, "vocab_size": 604}))
    assert "the tokenizer has 605 ids, but the vocabulary of the model is 604" in fail(
        "import", source, tmp_path / "again"
    )


def test_an_orbax_checkpoint_is_not_imported(imported, tmp_path):
    assert f"{imported[0]} is already an Orbax checkpoint" in fail("import", imported[0], tmp_path / "again")


def test_an_error_is_one_line_on_stderr(tmp_path):
    command = [sys.executable, "-m", "uno_jax.convert", "import", str(tmp_path / "nothing"), str(tmp_path / "new")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith(f"CheckpointError: {tmp_path}/nothing: no checkpoint found; expected ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [[], ["import"], ["import", "a"], ["import", "a", "b", "c"], ["move", "a", "b"]])
def test_an_invalid_command_shows_the_usage(arguments, capsys):
    with pytest.raises(SystemExit):
        convert.main(arguments)
    assert "usage: python -m uno_jax.convert" in capsys.readouterr().err
