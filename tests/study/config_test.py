"""What a study's config must fulfil."""

from __future__ import annotations

import dataclasses
import importlib

import pytest

from tests.helpers.made_up_study import CONFIG
from tests.helpers.paths import ROOT
from uno_jax.config import ConfigError, from_config_dict, to_config_dict
from uno_jax.study.config import Arm, BasePlan, Evaluation, StudyConfig, check_study
from uno_jax.study.plan import Study, units

NAMES = sorted(path.stem for path in (ROOT / "configs" / "study").glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("name", NAMES)
def test_every_study_can_be_run(name, tmp_path):
    config = from_config_dict(importlib.import_module(f"configs.study.{name}").get_config(), StudyConfig)
    check_study(config)
    assert {arm.name for arm in config.arms} <= {unit.name.split("/")[1] for unit in units(Study(config, tmp_path))[1:]}


@pytest.mark.parametrize("name", NAMES)
def test_every_study_says_what_it_is_for(name):
    assert len(importlib.import_module(f"configs.study.{name}").__doc__.split()) > 10


def test_there_and_back_through_a_config_dict():
    assert from_config_dict(to_config_dict(CONFIG), StudyConfig) == CONFIG


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"arms": (Arm("sft", "a"), Arm("sft", "b"))}, "the name sft is given twice"),
        ({"arms": (Arm("sft", "a"), Arm("base", "b"))}, "the name base is given twice"),
        ({"reference": "uno2"}, r"config.reference is 'uno2': expected one of the arms \(sft, uno, reca\)"),
        ({"base": BasePlan()}, "give either stages to train or a checkpoint"),
        (
            {"arms": (Arm("sft", "a", grid=(("x=1",),)), Arm("uno", "b", grid=(("x=1",), ("x=2",))))},
            r"the same budget, but the grids have 1 points \(sft\), 2 points \(uno\)",
        ),
        ({"score_every": 30}, r"config.score_every is 30: give a divisor of config.steps \(100\)"),
        (
            {"score_every": 50, "arms": (Arm("sft", "a", steps=120),)},
            r"config.score_every is 50: give a divisor of the steps of sft \(120\), or 0",
        ),
        ({"reading": Evaluation("draw")}, "config.reading.kind is 'draw': expected 'read'"),
        ({"final": (Evaluation("draw"), Evaluation("draw"))}, "config.final has the same evaluation twice"),
    ],
)
def test_a_wrong_study_is_named(fields, expected):
    with pytest.raises(ConfigError, match=expected):
        check_study(dataclasses.replace(CONFIG, **fields))


@pytest.mark.parametrize(
    ("evaluation", "kind"),
    [
        (Evaluation("draw"), "draw at the best scale"),
        (Evaluation("draw", scale=1.5), "draw at scale 1.5"),
        (Evaluation("read"), "read"),
    ],
)
def test_the_table_of_what_is_left_names_an_evaluation_by_what_it_costs(evaluation, kind):
    assert evaluation.kind_of_unit == kind
