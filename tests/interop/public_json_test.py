"""The JSON files of an export describe the model and what the public implementation does not support."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helpers.convert_command import fail, succeed
from tests.helpers.damage import remove_checksums
from tests.helpers.small_public import write_public
from uno_jax.interop.public_json import public_code_fields
from uno_jax.models.config import AutoencoderConfig, ModelConfig
from uno_jax.training.versions import versions


@pytest.fixture
def imported(tmp_path) -> Path:
    succeed("import", write_public(tmp_path / "public", decoder={"rope_theta": 1e6}), tmp_path / "imported")
    remove_checksums(tmp_path / "imported")  # its files are rewritten
    return tmp_path / "imported"


def rewrite(file: Path, part: str, **changes) -> None:
    content = json.loads(file.read_text())
    content[part] |= changes
    file.write_text(json.dumps(content))


def test_an_export_whose_json_files_describe_another_model_names_the_fields(imported, tmp_path):
    rewrite(imported / "assets" / "model.json", "vision", num_heads=1)
    rewrite(imported / "assets" / "model.json", "decoder", rope_theta=10.0)
    message = fail("export", imported, tmp_path / "out")
    assert "decoder.rope_theta is 10.0, but 1000000.0 in the JSON files" in message
    assert "vision.num_heads is 1, but 2 in the JSON files" in message
    assert not (tmp_path / "out").exists()


def test_fields_that_only_change_speed_may_differ_from_the_import(imported, tmp_path):
    rewrite(imported / "assets" / "model.json", "decoder", remat="full", scan_unroll=2)
    succeed("export", imported, tmp_path / "out")


def test_an_export_records_the_versions_that_wrote_it(imported, tmp_path):
    succeed("export", imported, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["uno_jax"]["versions"] == versions()
    assert f"written by: uno_jax {versions()['uno_jax']}, " in succeed("inspect", tmp_path / "out", "--skip_hash")


def test_constants_of_the_public_code_that_must_change_are_listed(imported, tmp_path):
    """BAGEL's public implementation does not read `config.json`."""
    assert (
        "Constants to change in the code of the public implementation: max_latent_size 2 (published: 64), "
        "vit_max_num_patch_per_side 2 (published: 70), ch 32 (published: 128), ch_mult [1] (published: [1, 2, 4, 4]), "
        "num_res_blocks 1 (published: 2), z_channels 1 (published: 16), downsample 1 (published: 8)."
    ) in succeed("export", imported, tmp_path / "out")


def test_the_published_sizes_are_all_in_the_public_code_or_files():
    assert public_code_fields(ModelConfig()) == {}
    other = AutoencoderConfig(scale=1.0, shift=0.0)
    assert public_code_fields(ModelConfig(autoencoder=other)) == {
        "scale_factor": (1.0, 0.3611),
        "shift_factor": (0.0, 0.1159),
    }
