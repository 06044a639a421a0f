"""Configs of a study's runs: a file, changes to it, and what determines the result."""

from __future__ import annotations

import pytest

from uno_jax.config import ConfigError
from uno_jax.study.config import RunPlan
from uno_jax.study.run_configs import identity, run_config

UNO = RunPlan("openmoji_uno")


def test_changes_are_applied_in_order():
    plan = RunPlan("openmoji_uno", ("optimizer.learning_rate=1e-3", "data.method=sft"))
    config = run_config(plan, ("optimizer.learning_rate=3e-4",), steps=70, data__seed=5)
    assert (config.optimizer.learning_rate, config.data.method, config.steps, config.data.seed) == (3e-4, "sft", 70, 5)


def test_a_config_is_read_by_its_path(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from configs import openmoji_sft\n"
        "def get_config():\n    config = openmoji_sft.get_config()\n    config.steps = 21\n    return config\n"
    )
    assert run_config(RunPlan(str(file))).steps == 21


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        (RunPlan("openmoji_un"), "there is no built-in config 'openmoji_un'"),
        (RunPlan("nowhere/mine.py"), "the config file nowhere/mine.py does not exist"),
        (RunPlan("openmoji_uno", ("optimizer.learning_rat=1",)), "did you mean optimizer.learning_rate"),
        (RunPlan("openmoji_uno", ("steps",)), "'steps' is not field=value"),
        (RunPlan("openmoji_uno", ("steps=many",)), "expected a value such as 400"),
        (RunPlan("openmoji_uno", ("data.supervise=never",)), "openmoji_uno: config.data.supervise is 'never'"),
    ],
)
def test_a_wrong_plan_is_named(plan, expected):
    with pytest.raises(ConfigError, match=expected):
        run_config(plan)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def get_config():\n    return {}['steps']\n", "the config file .*mine.py:2 raised KeyError: 'steps'"),
        ("import nothing\n", "the config file .*mine.py:1 raised ModuleNotFoundError: No module named 'nothing'"),
        ("get_config = 1\n", "the config file .*mine.py cannot be used .'int' object is not callable"),
        ("A config.\n", "the config file .*mine.py cannot be used .invalid syntax"),
        ("def get_config():\n    pass\n", r"the config file .*mine.py: get_config\(\) returned None; expected a"),
    ],
)
def test_an_error_of_a_config_file_is_named(tmp_path, source, expected):
    (tmp_path / "mine.py").write_text(source)
    with pytest.raises(ConfigError, match=expected):
        run_config(RunPlan(str(tmp_path / "mine.py")))


def test_what_determines_a_run_are_the_fields_that_differ_from_the_defaults():
    before, after = (identity(run_config(UNO, (f"objective.caption_weight={weight}",))) for weight in ("0.25", "0.1"))
    assert "objective.caption_weight" not in before  # the default
    assert after == before | {"objective.caption_weight": 0.1}


def test_paths_and_logs_do_not_determine_a_run():
    changes = ("log_every=3", "tensorboard=False", "pictures.every=5", "data.prefetch=1")
    fields = {"init_from": "elsewhere", "data__directory": "elsewhere"}
    assert identity(run_config(UNO, changes, **fields)) == identity(run_config(UNO))
