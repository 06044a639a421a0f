"""Checkpoints to look inside, and their batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.helpers.damage import remove_checksums
from tests.helpers.paths import REFERENCE
from tests.helpers.small_checkpoint import write_checkpoint
from tests.helpers.small_loaded import save_small_checkpoint
from tests.helpers.small_subject import RECORDS, small_subject
from uno_jax.inside.subject import encoded_batches, find_checkpoints, plans_of, short_names
from uno_jax.objectives.config import ObjectiveConfig
from uno_jax.process.errors import CheckpointError, UserError


def saved(directory: Path) -> str:
    return str(save_small_checkpoint(directory))


def test_a_checkpoint_has_the_objective_and_transforms_of_its_run(tmp_path):
    write_checkpoint(tmp_path / "run")
    [found] = find_checkpoints([str(tmp_path / "run")])
    assert found.name == "run"
    assert found.objective == ObjectiveConfig(time_shift=4.0)
    assert found.inputs.vae_transform.max_side == 32
    assert found.states == 3
    assert "decoder/layers/generation" in found.provenance.trained


def test_without_a_metaquery_transform_there_is_a_patch_for_every_metaquery(tmp_path):
    [found] = find_checkpoints([saved(tmp_path / "small")])
    assert found.inputs.metaquery_transform.max_side == 8  # 2 x 2 patches of 4 pixels; the table has 4 rows


def test_a_published_checkpoint_has_no_metaqueries_and_can_be_looked_into():
    [found] = find_checkpoints([str(REFERENCE)])
    assert found.config.num_metaqueries == 0
    assert found.inputs.metaquery_transform.max_side == found.config.vision.patch_size  # a single patch, never used


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["base", "runs/a/checkpoints"], ["base", "a"]),
        (["base", "runs/sft/b0/run", "runs/uno/b0/run"], ["base", "sft", "uno"]),
        (["b/checkpoints/3", "c/checkpoints/3"], ["b", "c"]),
        (["x/a/s0/run", "x/a/s1/run", "x/b/s1/run"], ["a/s0", "a/s1", "b/s1"]),
        (["run", "x/run"], ["run", "x/run"]),
        (["a/x", "b/x", "a"], ["a/x", "b/x", "a"]),
        (["run", "run/checkpoints"], ["run", "run/checkpoints"]),
    ],
)
def test_names_are_the_last_folders_that_differ(paths, names):
    assert short_names(paths) == names


def test_a_checkpoint_given_twice_is_rejected(tmp_path):
    path = saved(tmp_path / "small")
    with pytest.raises(UserError, match="small is given twice"):
        find_checkpoints([path, path])


def test_checkpoints_with_different_tokens_are_rejected(tmp_path):
    write_checkpoint(tmp_path / "run")
    with pytest.raises(UserError, match=r"small and run cut a picture into different tokens .*16 pixels; .*32 pixels"):
        find_checkpoints([saved(tmp_path / "small"), str(tmp_path / "run")])


def test_a_damaged_objective_is_named(tmp_path):
    path = save_small_checkpoint(tmp_path / "small")
    remove_checksums(path)
    (path / "assets" / "config.json").write_text('{"objective": {"flow_weight": "high"}}')
    with pytest.raises(CheckpointError, match=r"config\.json: objective\.flow_weight is 'high'"):
        find_checkpoints([str(path)])


def test_batches_have_one_shape_and_the_numbers_of_their_records():
    batches = encoded_batches(small_subject(), plans_of(small_subject(), RECORDS), 2)
    assert len({batch.generation.sample.shape for batch in batches}) == 1
    occurrences = np.concatenate([batch.latent_source.occurrence.max(axis=1) for batch in batches])
    assert occurrences.tolist() == [0, 1, 2, 3, 4, 0]
    assert not batches[-1].generation.sample[1].any()
