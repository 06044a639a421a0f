"""Sheets of samples during training."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
from absl import flags
from PIL import Image

from tests.helpers.made_up_plans import latents_of
from tests.helpers.made_up_records import LAYOUT, make_record, make_records, small_config, small_tokenizer
from tests.helpers.small_model import small_model, small_params
from uno_jax.attention.metadata import CAPTION, CONTEXT, NOISED
from uno_jax.config import ConfigError
from uno_jax.data.config import PartConfig
from uno_jax.data.plans import NoisedTarget, Plan
from uno_jax.data.record import EncodedRecord, Record
from uno_jax.data.records import write_records
from uno_jax.data.transforms import ImageTransform
from uno_jax.parallel.mesh import MeshConfig, make_mesh
from uno_jax.run.config import PicturesConfig, RunConfig, check_config
from uno_jax.run.context import RunContext
from uno_jax.run.held_out import open_held_out
from uno_jax.run.pictures import Chosen, caption_inputs, choose_records, make_generate_pictures, make_plan
from uno_jax.run.run import warning_if_unwritten
from uno_jax.sheets.samples import Example, Picture, make_sheet
from uno_jax.training.state import Params

TOKENIZER = small_tokenizer()


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> RunConfig:
    """Config of a run on 12 test records: four each of text_to_image, editing and understanding."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # grain reads them
    directory = tmp_path_factory.mktemp("pictures") / "data"
    splits = {"train": lambda: make_records(3), "test": lambda: make_records(12)}
    write_records(directory, "made_up", splits, description="made up", license_text="none")
    return RunConfig(
        model=small_model(),
        data=small_config(directory=str(directory)),
        pictures=PicturesConfig(every=1, examples=3, timesteps=2, caption_tokens=4),
    )


def with_task_weights(config: RunConfig, **weights: float) -> RunConfig:
    return dataclasses.replace(config, data=dataclasses.replace(config.data, task_weights=weights))


def chosen(config: RunConfig) -> list[Record]:
    return [record for record, _ in choose_records(config, open_held_out(config))]


def test_examples_are_the_same_every_time_and_of_every_task_with_a_target(config):
    records = chosen(config)
    assert [record.task for record in records] == ["text_to_image", "editing", "editing"]
    assert records == chosen(config)


def test_examples_are_of_the_tasks_that_are_trained(config):
    assert {r.task for r in chosen(with_task_weights(config, editing=1.0, understanding=1.0))} == {"editing"}


def test_no_more_examples_than_records(config):
    many = dataclasses.replace(config, pictures=PicturesConfig(examples=100))
    ids = [record.id for record in chosen(many)]
    assert len(ids) == len(set(ids)) == 8


def test_a_split_without_targets_is_rejected(config):
    with pytest.raises(
        ConfigError, match=r"config\.pictures\.every is 1, but split 'test'.* has no sampled record .*set it to 0"
    ):
        chosen(with_task_weights(config, understanding=1.0))


def test_pictures_have_the_size_at_which_their_dataset_is_trained(config):
    parts = {
        "large": PartConfig(config.data.directory),
        "small": PartConfig(config.data.directory, vae_transform=ImageTransform(8, 8, 8)),
    }
    mixed = dataclasses.replace(config, data=dataclasses.replace(config.data, directory="", mixture=parts))
    chosen = choose_records(mixed, open_held_out(mixed))
    sides = {
        record.id.split(":")[0]: plan_target(make_plan(Chosen(record, own), TOKENIZER)).shape[0]
        for record, own in chosen
    }
    assert sides == {"large": 16, "small": 8}


def plan_target(plan: Plan) -> np.ndarray:
    target = plan[-1]
    assert isinstance(target, NoisedTarget)
    return target.pixels


def test_pictures_are_pixels_also_if_the_run_has_their_moments():
    record = make_record()
    moments = np.zeros((2, 2, 8), np.float32)
    encoded = EncodedRecord(
        **{f.name: getattr(record, f.name) for f in dataclasses.fields(record)}, pictures=(moments,)
    )
    assert plan_target(make_plan(Chosen(encoded, small_config()), TOKENIZER)).shape == (16, 16, 3)


@pytest.mark.parametrize("change", [{"examples": 0}, {"timesteps": 1}, {"caption_tokens": 1}])
def test_settings_that_generate_nothing_are_rejected(config, change):
    pictures = dataclasses.replace(config.pictures, **change)
    with pytest.raises(ConfigError, match=f"config.pictures.{next(iter(change))} is"):
        check_config(dataclasses.replace(config, pictures=pictures))


def test_a_caption_depends_only_on_the_target():
    targets = [NoisedTarget(pixels=latents_of(2, 2)), NoisedTarget(pixels=latents_of(1, 2))]
    blocks, first = caption_inputs(targets, LAYOUT, TOKENIZER, rows=3)
    assert (blocks.understanding.role == NOISED).sum(axis=1).tolist() == [2, 2, 0]
    assert (blocks.generation.role == NOISED).sum(axis=1).tolist() == [4, 2, 0]
    assert not (blocks.understanding.role == CONTEXT).any()
    assert first.role.tolist() == [[CAPTION], [CAPTION], [0]]
    assert first.block.tolist() == [[1], [1], [0]]


def context(config: RunConfig, workdir: Path) -> RunContext:
    return RunContext(config, TOKENIZER, make_mesh(MeshConfig(), jax.devices()[:1]), {}, workdir, open_held_out(config))


def test_a_sheet_is_written_per_step_and_depends_only_on_the_parameters(config, tmp_path):
    generate_pictures = make_generate_pictures(context(config, tmp_path))
    for step, seed in ((0, 0), (1, 0), (2, 1)):
        generate_pictures(step, small_params(config.model, seed))
    sheets = [np.asarray(Image.open(tmp_path / "pictures" / f"step_00000{step}.png")) for step in range(3)]
    # Without the title, which contains the step.
    first, same, other = (sheet[50:] for sheet in sheets)
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("problem", ["a file in place of the folder", "a full disk"])
def test_pictures_that_cannot_be_written_are_a_warning(tmp_path, problem):
    def generate(step: int, params: Params) -> None:
        if problem == "a full disk":
            Path("/dev/full").write_bytes(bytes(10_000))
        (tmp_path / "pictures").mkdir()

    (tmp_path / "pictures").touch()
    said: list[str] = []
    warning_if_unwritten(generate, said.append)(3, {})
    reason = "No space left on device" if problem == "a full disk" else "File exists"
    assert said == [f"warning: the pictures of step 3 cannot be written ({reason}). Training goes on."]


COLOURS = [(200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0), (200, 0, 200)]


def test_a_sheet_holds_every_picture_once_scaled_up_on_white():
    solid = [np.full((16, 16, 3), colour, np.uint8) for colour in COLOURS]
    one = Example("text_to_image", "a prompt", (Picture("target", solid[0], "red"), Picture("sample", solid[1])))
    two = Example("editing", "an edit", tuple(Picture("picture", pixels) for pixels in solid[2:]))
    sheet = np.asarray(make_sheet("step 1", [one, two]))
    assert [int((sheet == colour).all(axis=-1).sum()) for colour in COLOURS] == [128 * 128] * 5
    assert (sheet[:10] == 255).all()


def test_large_pictures_keep_their_size():
    picture = np.full((30, 200, 3), COLOURS[0], np.uint8)
    sheet = np.asarray(make_sheet("", [Example("text_to_image", "", (Picture("", picture),))]))
    assert (sheet == COLOURS[0]).all(axis=-1).sum() == 30 * 200
