"""The base in `pretrained/` is whole, small, and reads what it is shown."""

from __future__ import annotations

import pytest

from configs import scenes_sft
from tests.helpers.paths import ROOT
from uno_jax.config import from_config_dict
from uno_jax.data.plans import CleanLatents, Text, VitImage
from uno_jax.data.scenes.draw import draw_scene
from uno_jax.data.scenes.scene import Ground, Place, Scene, Thing
from uno_jax.inference.reader import load_reader
from uno_jax.models.config import model_differences
from uno_jax.run.config import RunConfig
from uno_jax.sampling.text import TextConfig

BASE = ROOT / "pretrained/scenes_base"
MOST_BYTES = 25 * 2**20
THINGS = (
    Thing("heart", "red", "large", Place(0.5, 0.5)),
    Thing("star", "blue", "large", Place(0.25, 0.25)),
    Thing("square", "green", "large", Place(0.75, 0.75)),
)


@pytest.fixture(scope="module")
def reader():
    return load_reader(BASE)


def test_the_base_is_small_enough_to_ship():
    assert sum(file.stat().st_size for file in BASE.rglob("*") if file.is_file()) < MOST_BYTES


def test_the_base_is_a_model_of_the_configs_of_post_training(reader):
    config = from_config_dict(scenes_sft.get_config(), RunConfig).model
    assert not model_differences(reader.model.config, config)


@pytest.mark.parametrize("seen_as", ["vit", "latents"])
def test_the_base_names_large_things_in_pictures(reader, seen_as):
    model = reader.model
    question = Text(ids=tuple(model.tokenizer.encode("what is where?")))
    plans = []
    for thing in THINGS:
        pixels = draw_scene(Scene((thing,), Ground("white", "plain")), 64)
        vit, latents = model.vit_transform.resize(pixels), model.vae_transform.resize(pixels)
        plans.append((VitImage(pixels=vit) if seen_as == "vit" else CleanLatents(pixels=latents), question))
    seeds = list(range(len(plans)))
    *_, written = reader.write(reader.read(plans, seeds), TextConfig(12), seeds)
    answers = [model.tokenizer.decode(ids).split()[:3] for ids in written]
    assert answers == [[thing.size, thing.colour, thing.shape] for thing in THINGS]
