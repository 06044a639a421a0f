"""What a picture says of how it was made, whoever draws it."""

from __future__ import annotations

import json

from PIL import Image

from tests.helpers.made_up_plans import latents_of
from tests.helpers.small_loaded import small_generator
from uno_jax.inference.generate import Request
from uno_jax.inference.picture_metadata import picture_metadata
from uno_jax.inference.picture_settings import PictureSettings

SOURCE = latents_of(1, 2)  # 8 x 16 pixels


def said(*context, **settings):
    return picture_metadata(Request(context, PictureSettings(**settings)), small_generator())


def test_it_names_model_context_and_settings_and_what_they_come_to():
    metadata = said("thing", timesteps=7)
    assert metadata["checkpoint"] == "small"
    assert metadata["context"] == ["thing"]
    assert metadata["timesteps"] == 7
    assert (metadata["size"], metadata["time_shift"]) == ("16x16", 2.0)
    assert json.loads(json.dumps(metadata)) == metadata


def test_a_picture_in_a_file_is_told_by_the_bytes_of_the_file(tmp_path):
    file = tmp_path / "a.png"
    Image.fromarray(SOURCE).save(file)
    before = said(file, "thing")
    assert before["context"][0]["image"] == "a.png"
    assert before["size"] == "16x8"
    Image.fromarray(latents_of(1, 2, seed=1)).save(file)
    assert said(file, "thing") != before


def test_a_picture_in_memory_is_told_by_its_pixels():
    assert said(SOURCE)["context"][0]["pixels"] == "16x8"
    assert said(SOURCE) == said(Image.fromarray(SOURCE))
    assert said(SOURCE) != said(latents_of(1, 2, seed=1))
