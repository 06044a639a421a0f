"""Condition dropout, and supervision that depends on the prompt."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.made_up_records import make_record, small_inputs
from uno_jax.config import ConfigError, from_config_dict
from uno_jax.data.dropout import drop_conditions
from uno_jax.data.methods import MethodConfig, make_sample
from uno_jax.data.plans import CleanLatents, DroppedImage, NoisedTarget, Text, VitImage

INPUTS = small_inputs()
KEEP_ALL = {"text_dropout": 0.0, "vae_dropout": 0.0, "vit_dropout": 0.0}
DROP_ALL = {"text_dropout": 1.0, "vae_dropout": 1.0, "vit_dropout": 1.0}


def plan_of(record, method, seed=0):
    return make_sample(record, MethodConfig(method=method), INPUTS, np.random.default_rng(seed)).plan


def kinds(plan):
    return [type(item) for item in plan]


def test_dropped_text_leaves_no_trace_and_dropped_images_advance_the_position():
    plan = plan_of(make_record(task="editing"), "uno")
    dropped = drop_conditions(plan, MethodConfig(**DROP_ALL), np.random.default_rng(0))
    assert kinds(dropped) == [DroppedImage, DroppedImage, NoisedTarget]


def test_nothing_is_dropped_at_rate_zero():
    plan = plan_of(make_record(task="editing"), "uno")
    assert drop_conditions(plan, MethodConfig(**KEEP_ALL), np.random.default_rng(0)) == plan


def test_conditions_are_dropped_one_by_one_at_their_rates():
    plan = plan_of(make_record(task="editing"), "sft")
    config = MethodConfig(text_dropout=0.1, vae_dropout=0.5, vit_dropout=0.9)
    rng = np.random.default_rng(0)
    kept = np.zeros(3)
    for _ in range(2000):
        dropped = drop_conditions(plan, config, rng)
        kept += [any(isinstance(item, kind) for item in dropped) for kind in (Text, CleanLatents, VitImage)]
    np.testing.assert_allclose(kept / 2000, [0.9, 0.5, 0.1], atol=0.03)


def test_questions_and_answers_are_never_dropped():
    plan = plan_of(make_record(task="understanding"), "uno")
    assert drop_conditions(plan, MethodConfig(**DROP_ALL), np.random.default_rng(0)) == plan


@pytest.mark.parametrize(
    ("supervise", "rates", "supervised"),
    [
        ("always", DROP_ALL, True),
        ("always", KEEP_ALL, True),
        ("prompt_dropped", DROP_ALL, True),
        ("prompt_dropped", KEEP_ALL, False),
        ("prompt_kept", DROP_ALL, False),
        ("prompt_kept", KEEP_ALL, True),
    ],
)
def test_supervision_can_depend_on_the_prompt(supervise, rates, supervised):
    plan = plan_of(make_record(), "uno")
    dropped = drop_conditions(plan, MethodConfig(supervise=supervise, **rates), np.random.default_rng(0))
    assert (dropped[-1].caption is not None) == supervised
    assert (dropped[-1].query_pixels is not None) == supervised


@settings(max_examples=20)
@given(seed=st.integers(0, 1000))
def test_methods_drop_the_same_conditions(seed):
    record = make_record(task="editing")
    config = MethodConfig(text_dropout=0.5, vae_dropout=0.5, vit_dropout=0.5)
    plans = [
        drop_conditions(plan_of(record, method, seed), replace(config, method=method), np.random.default_rng(seed))
        for method in ("uno", "sft")
    ]
    assert kinds(plans[0]) == kinds(plans[1])


def test_an_unknown_value_of_supervise_is_rejected():
    with pytest.raises(ConfigError, match=r"supervise is 'never': expected one of 'always', 'prompt_dropped'"):
        from_config_dict({"supervise": "never"}, MethodConfig)
