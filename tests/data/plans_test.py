"""Post-training methods as sample plans, and condition dropout."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.made_up_records import make_record, small_inputs
from uno_jax.data.dropout import drop_conditions
from uno_jax.data.methods import MethodConfig, make_sample
from uno_jax.data.plans import CleanLatents, DroppedImage, NoisedTarget, Text, VitImage

INPUTS = small_inputs()
KEEP_ALL = {"text_dropout": 0.0, "vae_dropout": 0.0, "vit_dropout": 0.0}
DROP_ALL = {"text_dropout": 1.0, "vae_dropout": 1.0, "vit_dropout": 1.0}


def sample_of(record, method, seed=0, **config):
    return make_sample(record, MethodConfig(method=method, **config), INPUTS, np.random.default_rng(seed))


def kinds(plan):
    return [type(item) for item in plan]


def test_text_to_image_is_the_prompt_and_then_the_target():
    sample = sample_of(make_record(), "uno")
    assert kinds(sample.plan) == [Text, NoisedTarget]
    assert INPUTS.tokenizer.decode(sample.plan[0].ids) == "thing 0"


def test_editing_has_each_source_as_latents_and_as_patches_before_the_instruction():
    sample = sample_of(make_record(task="editing"), "uno")
    assert kinds(sample.plan) == [CleanLatents, VitImage, Text, NoisedTarget]


@pytest.mark.parametrize(
    ("method", "caption", "queries"),
    [("uno", True, True), ("uno_caption", True, False), ("uno_visual", False, True), ("sft", False, False)],
)
def test_methods_differ_in_what_supervises_the_target(method, caption, queries):
    target = sample_of(make_record(), method).plan[-1]
    assert (target.caption is not None) == caption
    assert (target.query_pixels is not None) == queries


@pytest.mark.parametrize("task", ["text_to_image", "editing"])
def test_reca_shows_the_target_itself_and_no_text(task):
    record = make_record(task=task)
    sample = sample_of(record, "reca")
    assert kinds(sample.plan) == [VitImage, NoisedTarget]
    assert sample.task == "reconstruction"
    np.testing.assert_array_equal(sample.plan[0].pixels, INPUTS.vit_transform.resize(sample.plan[1].pixels))
    assert sample.plan[1].caption is None


@pytest.mark.parametrize("method", ["uno", "sft", "reca", "pretrain"])
def test_understanding_asks_about_the_picture_and_trains_the_answer(method):
    sample = sample_of(make_record(task="understanding"), method)
    assert kinds(sample.plan) == [VitImage, Text, Text]
    assert [item.answer for item in sample.plan[1:]] == [False, True]


def test_understanding_without_a_question_has_only_the_answer():
    sample = sample_of(make_record(task="understanding", prompt=""), "sft")
    assert kinds(sample.plan) == [VitImage, Text]


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ({"understanding_share": 0.0}, [Text, NoisedTarget]),
        ({"understanding_share": 1.0, "latent_share": 0.0}, [VitImage, Text]),
        ({"understanding_share": 1.0, "latent_share": 1.0}, [CleanLatents, Text]),
    ],
)
def test_pretrain_turns_a_share_of_pairs_into_captioning(shares, expected):
    assert kinds(sample_of(make_record(), "pretrain", **shares).plan) == expected


@pytest.mark.parametrize(("noised_share", "time_scale"), [(0.0, 0.0), (1.0, 0.25)])
def test_pretrain_reads_clean_and_lightly_noised_latents(noised_share, time_scale):
    shares = {"understanding_share": 1.0, "latent_share": 1.0, "noised_share": noised_share}
    sample = sample_of(make_record(), "pretrain", noised_time_scale=0.25, **shares)
    assert sample.plan[0].time_scale == time_scale
    assert sample.task == "understanding"
    assert sample.plan[1].answer


@settings(max_examples=30)
@given(seed=st.integers(0, 1000))
def test_the_caption_is_never_the_prompt(seed):
    record = make_record(captions=("thing 0", "thing 0 ", "another thing"))
    target = sample_of(record, "uno", seed).plan[-1]
    assert INPUTS.tokenizer.decode(target.caption) == "another thing"


def test_every_caption_comes_up():
    drawn = {sample_of(make_record(), "uno", seed).plan[-1].caption for seed in range(20)}
    assert {INPUTS.tokenizer.decode(ids) for ids in drawn} == {"number 0", "no 0"}


@pytest.mark.parametrize("captions", [(), ("thing 0",)])
def test_without_another_caption_only_metaqueries_supervise(captions):
    sample = sample_of(make_record(captions=captions), "uno")
    assert sample.plan[-1].caption is None
    assert sample.plan[-1].query_pixels is not None
    assert sample.without_caption


def test_a_method_without_captions_misses_none():
    assert not sample_of(make_record(captions=()), "sft").without_caption


def test_an_unreadable_picture_names_record_and_field():
    with pytest.raises(ValueError, match=r"record 'record0', field sources\[0\]"):
        sample_of(make_record(task="editing", sources=(b"x",)), "sft")


def test_dropped_text_leaves_nothing_and_dropped_images_leave_their_step():
    plan = sample_of(make_record(task="editing"), "uno").plan
    dropped = drop_conditions(plan, MethodConfig(**DROP_ALL), np.random.default_rng(0))
    assert kinds(dropped) == [DroppedImage, DroppedImage, NoisedTarget]


def test_nothing_is_dropped_at_rate_zero():
    plan = sample_of(make_record(task="editing"), "uno").plan
    assert drop_conditions(plan, MethodConfig(**KEEP_ALL), np.random.default_rng(0)) == plan


def test_conditions_are_dropped_one_by_one_at_their_rates():
    plan = sample_of(make_record(task="editing"), "sft").plan
    config = MethodConfig(text_dropout=0.1, vae_dropout=0.5, vit_dropout=0.9)
    rng = np.random.default_rng(0)
    kept = np.zeros(3)
    for _ in range(2000):
        dropped = drop_conditions(plan, config, rng)
        kept += [any(isinstance(item, kind) for item in dropped) for kind in (Text, CleanLatents, VitImage)]
    np.testing.assert_allclose(kept / 2000, [0.9, 0.5, 0.1], atol=0.03)


def test_questions_and_answers_are_never_dropped():
    plan = sample_of(make_record(task="understanding"), "uno").plan
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
    plan = sample_of(make_record(), "uno").plan
    dropped = drop_conditions(plan, MethodConfig(supervise=supervise, **rates), np.random.default_rng(0))
    assert (dropped[-1].caption is not None) == supervised
    assert (dropped[-1].query_pixels is not None) == supervised


@settings(max_examples=20)
@given(seed=st.integers(0, 1000))
def test_methods_drop_the_same_conditions(seed):
    record = make_record(task="editing")
    config = MethodConfig(text_dropout=0.5, vae_dropout=0.5, vit_dropout=0.5)
    plans = [
        drop_conditions(
            sample_of(record, method, seed).plan, replace(config, method=method), np.random.default_rng(seed)
        )
        for method in ("uno", "sft")
    ]
    assert kinds(plans[0]) == kinds(plans[1])
