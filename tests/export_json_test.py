"""The JSON files of an export: they describe the model, and say what the public implementation has not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.convert_test import fail, succeed
from tests.small_public import write_public


@pytest.fixture
def imported(tmp_path) -> Path:
    succeed("import", write_public(tmp_path / "public", decoder={"rope_theta": 1e6}), tmp_path / "imported")
    return tmp_path / "imported"


def rewrite(file: Path, part: str, **changes) -> None:
    content = json.loads(file.read_text())
    content[part] |= changes
    file.write_text(json.dumps(content))


def test_a_model_that_the_imported_json_files_do_not_describe_is_refused_with_the_fields(imported, tmp_path):
    rewrite(imported / "assets" / "model.json", "vision", num_heads=1)
    rewrite(imported / "assets" / "model.json", "decoder", rope_theta=10.0)
    message = fail("export", imported, tmp_path / "out")
    assert "decoder.rope_theta is 10.0, by the JSON files 1000000.0" in message
    assert "vision.num_heads is 1, by the JSON files 2" in message
    assert not (tmp_path / "out").exists()


def test_fields_that_change_speed_alone_may_be_others_than_at_the_import(imported, tmp_path):
    rewrite(imported / "assets" / "model.json", "decoder", remat="full", scan_unroll=2)
    succeed("export", imported, tmp_path / "out")
