"""Metadata of pictures, shared by all commands."""

from __future__ import annotations

import json

from PIL import Image

from tests.helpers.made_up_plans import latents_of
from tests.helpers.small_loaded import small_generator
from uno_jax.inference.generate import Request
from uno_jax.inference.picture_metadata import picture_metadata
from uno_jax.inference.picture_settings import PictureSettings

SOURCE = latents_of(1, 2)  # 8 x 16 pixels


def metadata_of(*context, **settings):
    return picture_metadata(Request(context, PictureSettings(**settings)), small_generator())


def test_metadata_has_model_context_and_resolved_settings():
    metadata = metadata_of("thing", timesteps=7)
    assert metadata["checkpoint"] == small_generator().reader.model.name
    assert metadata["context"] == ["thing"]
    assert metadata["timesteps"] == 7
    assert (metadata["size"], metadata["time_shift"]) == ("16x16", 2.0)
    assert json.loads(json.dumps(metadata)) == metadata


def test_a_picture_file_is_identified_by_its_bytes(tmp_path):
    file = tmp_path / "a.png"
    Image.fromarray(SOURCE).save(file)
    before = metadata_of(file, "thing")
    assert before["context"][0]["image"] == "a.png"
    assert before["size"] == "16x8"
    Image.fromarray(latents_of(1, 2, seed=1)).save(file)
    assert metadata_of(file, "thing") != before


def test_a_picture_in_memory_is_identified_by_its_pixels():
    assert metadata_of(SOURCE)["context"][0]["pixels"] == "16x8"
    assert metadata_of(SOURCE) == metadata_of(Image.fromarray(SOURCE))
    assert metadata_of(SOURCE) != metadata_of(latents_of(1, 2, seed=1))
