"""The dataset of scenes: records by seed, split and number."""

import io
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from uno_jax import prepare_data
from uno_jax.data.records import open_records
from uno_jax.data.scenes.dataset import SCENES, scene_records
from uno_jax.data.scenes.draw import draw_scene
from uno_jax.data.scenes.edits import edit_of
from uno_jax.data.scenes.generate import CATEGORIES, SPLITS, example_of, make_example
from uno_jax.prepare_data import Request


def records_of(seed, split, scenes):
    return [record for number in range(scenes) for record in scene_records(seed, split, number, image_size=32)]


VALUES = {"scenes": 12, "other_scenes": 4, "seed": 0, "image_size": 32}
RECORDS = {split: records_of(0, split, 72) for split in SPLITS}
TRAIN = RECORDS["train"]


def of_task(task):
    return [record for record in TRAIN if record.task == task]


def pixels(encoded):
    return np.asarray(Image.open(io.BytesIO(encoded)))


@pytest.mark.parametrize("split", SPLITS)
def test_the_same_seed_gives_the_same_bytes(split):
    again = records_of(0, split, 20)
    assert again == RECORDS[split][: len(again)]


def test_another_seed_gives_other_pictures():
    assert not {record.image for record in records_of(1, "train", 20)} & {record.image for record in TRAIN}


def test_no_two_splits_share_a_picture():
    pictures = [{record.image for record in RECORDS[split]} for split in SPLITS]
    assert len(set.union(*pictures)) == sum(map(len, pictures))


@pytest.mark.parametrize("split", SPLITS)
def test_every_scene_has_two_questions_and_one_in_six_has_edits(split):
    counts = Counter(record.task for record in RECORDS[split])
    assert counts == {"text_to_image": 72, "understanding": 144, "editing": 36}


def test_every_category_has_questions_and_edits():
    for task in ("understanding", "editing"):
        assert {example_of(record.id).category for record in of_task(task)} == set(CATEGORIES)


def test_ids_are_unique():
    ids = [record.id for records in RECORDS.values() for record in records]
    assert len(set(ids)) == len(ids)


def test_the_id_of_a_record_gives_its_example():
    record = of_task("text_to_image")[5]
    example = example_of(record.id)
    assert (record.id, record.prompt, record.captions) == (example.id, example.prompt, example.captions)
    np.testing.assert_array_equal(pixels(record.image), draw_scene(example.scene, 32))


def test_the_ids_of_questions_and_edits_give_their_example_too():
    assert example_of("scenes/4/dev/7/question-1") == example_of("scenes/4/dev/7/edit-2") == make_example(4, "dev", 7)


@pytest.mark.parametrize(
    "record_id", ["", "scenes", "scenes/0/train", "scenes/0/all/1", "scenes/a/train/1", "x/0/test/1"]
)
def test_other_ids_give_no_example(record_id):
    with pytest.raises(ValueError, match="is no id of a record of scenes"):
        example_of(record_id)


def test_an_editing_record_shows_its_scenes_before_and_after():
    for record in of_task("editing"):
        edit = edit_of(record.id)
        assert (record.prompt, record.captions) == (edit.instruction, edit.captions)
        np.testing.assert_array_equal(pixels(record.sources[0]), draw_scene(edit.source, 32))
        np.testing.assert_array_equal(pixels(record.image), draw_scene(edit.target, 32))


def test_no_caption_equals_its_prompt():
    assert all(record.prompt not in record.captions for record in TRAIN)


def test_the_dataset_is_prepared_with_all_its_splits(tmp_path, capsys):
    prepare_data.prepare(Request(SCENES, VALUES, tmp_path / "out"), Console(soft_wrap=True, width=200))
    printed = capsys.readouterr().out
    assert "126/126" in printed  # records in shards
    assert all(split in printed for split in SPLITS)
    stored = {split: {record.id: record for record in open_records(tmp_path / "out", split)} for split in SPLITS}
    assert sum(map(len, stored.values())) == 126
    assert stored["novel"] == {record.id: record for record in records_of(0, "novel", 4)}
