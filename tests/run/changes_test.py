"""Which fields of a config a resumed run may change."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from uno_jax.config import from_config_dict, to_config_dict, to_json
from uno_jax.run.changes import FREE, changes, learning_rate_line
from uno_jax.run.config import RunConfig

START = RunConfig(steps=100)
SAVED = json.loads(json.dumps(to_json(START)))


def changed(**fields: Any) -> RunConfig:
    config = to_config_dict(START)
    config.update_from_flattened_dict(fields)
    return from_config_dict(config, RunConfig)


def compared(config: RunConfig, saved: dict = SAVED) -> dict[str, tuple[bool, bool]]:
    return {change.name: (change.free, change.possible) for change in changes(config, saved, START.model)}


def test_an_unchanged_config_has_no_changes():
    assert compared(START) == {}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 200),
        ("checkpoint.every", 7),
        ("optimizer.learning_rate", 1e-3),
        ("mesh.dcn.data", 2),
        ("log_every", 3),
        ("limits.spike", "skip"),
    ],
)
def test_fields_that_keep_the_meaning_of_a_run_are_free(field, value):
    assert compared(changed(**{field: value})) == {field: (True, True)}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seed", 1),
        ("data.seed", 1),
        ("data.rows", 16),
        ("data.task_weights", {"editing": 1.0}),
        ("data.vae_transform.max_side", 512),
        ("objective.caption_weight", 0.7),
        ("optimizer.weight_decay", 0.01),
        ("optimizer.clip_norm", 0.0),
        ("trainable", ("",)),
        ("trainable_dtype", "bfloat16"),
    ],
)
def test_other_fields_are_refused_unless_they_are_accepted(field, value):
    assert compared(changed(**{field: value})) == {field: (False, True)}


def test_a_dataset_of_a_mixture_may_move_but_its_weight_is_refused():
    mixture = {"photos": {"directory": "here", "weight": 2.0}, "edits": {"directory": "there"}}
    saved = json.loads(json.dumps(to_json(changed(**{"data.mixture": mixture}))))
    moved = {"photos": {"directory": "elsewhere", "weight": 2.0}, "edits": {"directory": "there"}}
    assert compared(changed(**{"data.mixture": moved}), saved) == {}
    heavier = {"photos": {"directory": "here", "weight": 3.0}, "edits": {"directory": "there"}}
    assert compared(changed(**{"data.mixture": heavier}), saved) == {"data.mixture": (False, True)}


def test_sizes_of_the_model_cannot_be_changed_but_its_speed_can():
    found = compared(changed(**{"model.decoder.mlp_size": 24, "model.decoder.remat": "dots"}))
    assert found == {"model.decoder.mlp_size": (False, False), "model.decoder.remat": (True, True)}


def test_a_change_names_the_field_with_both_values():
    (change,) = changes(changed(**{"optimizer.weight_decay": 0.01}), SAVED, START.model)
    assert str(change) == "config.optimizer.weight_decay is 0.01, in the checkpoint 0.0"


def test_fields_unknown_to_an_earlier_version_had_their_defaults():
    earlier = json.loads(json.dumps(SAVED))
    del earlier["checkpoint"], earlier["data"]["seed"]
    earlier["removed"] = {"field": 1}
    assert compared(START, earlier) == {}
    assert compared(changed(**{"data.seed": 3}), earlier) == {"data.seed": (False, True)}


def test_every_free_field_is_one_of_the_config():
    for name in FREE:
        value: Any = START
        for part in name.split("."):
            assert part in {field.name for field in dataclasses.fields(value)}, name
            value = getattr(value, part)


def test_a_run_that_goes_on_says_what_its_schedule_does():
    cosine = {"optimizer.schedule": "cosine", "optimizer.learning_rate": 1.0}
    saved = json.loads(json.dumps(to_json(changed(**cosine))))
    line = learning_rate_line(changed(**cosine, steps=200), saved, step=100)
    assert line == (
        "The cosine schedule now ends at step 200, before at 100: step 101 has learning rate 0.5, before 0, and the "
        "last step 6.17e-05."
    )
    assert learning_rate_line(changed(**cosine), saved, step=100) is None
    assert learning_rate_line(changed(**cosine), saved, step=50) is None
