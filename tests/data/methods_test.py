"""Post-training methods: the plans that they make from records."""

import dataclasses
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.helpers.made_up_records import VIT_TRANSFORM, make_record, picture, small_inputs
from uno_jax.data.methods import Inputs, MethodConfig, make_sample
from uno_jax.data.plans import CleanLatents, NoisedTarget, Text, VitImage
from uno_jax.data.tokenizer import byte_tokenizer
from uno_jax.data.transforms import ImageTransform

INPUTS = small_inputs()


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


@pytest.mark.parametrize("task", ["text_to_image", "editing"])
def test_hidden_supervision_reads_a_copy_of_the_target_before_the_prompt(task):
    *sources, read, prompt, target = sample_of(make_record(task=task), "uno", supervise="hidden").plan
    *expected, usual_prompt, supervised = sample_of(make_record(task=task), "uno").plan
    assert (kinds(sources), prompt) == (kinds(expected), usual_prompt)
    assert (read.flow, target.flow) == (False, True)
    assert (read.caption, target.caption) == (supervised.caption, None)
    assert target.query_pixels is None
    for item in (read, target):
        np.testing.assert_array_equal(item.pixels, supervised.pixels)
    np.testing.assert_array_equal(read.query_pixels, supervised.query_pixels)


@pytest.mark.parametrize(("method", "captions"), [("sft", ("another",)), ("uno_caption", ())])
def test_without_supervision_nothing_is_hidden(method, captions):
    sample = sample_of(make_record(captions=captions), method, supervise="hidden")
    assert kinds(sample.plan) == [Text, NoisedTarget]
    assert sample.plan[-1].flow


@pytest.mark.parametrize("task", ["text_to_image", "editing"])
def test_sft_recaption_is_prompted_with_the_caption_that_uno_supervises_with(task):
    record = make_record(task=task)
    for seed in range(4):
        *sources, prompt, target = sample_of(record, "sft_recaption", seed).plan
        *expected, _, supervised = sample_of(record, "uno", seed).plan
        assert prompt == Text(ids=supervised.caption, droppable=True)
        assert kinds(sources) == kinds(expected)
        assert target.caption is target.query_pixels is None


def test_sft_recaption_keeps_the_prompt_of_a_record_without_other_captions():
    sample = sample_of(make_record(captions=("thing 0",)), "sft_recaption")
    assert INPUTS.tokenizer.decode(sample.plan[0].ids) == "thing 0"
    assert sample.without_caption


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


@pytest.mark.parametrize(("share", "prompts"), [(0.0, ["thing 0"]), (1.0, ["number 0", "no 0"])])
def test_pretrain_takes_a_caption_as_the_prompt_of_a_share_of_pairs(share, prompts):
    plan = sample_of(make_record(), "pretrain", understanding_share=0.0, recaption_share=share).plan
    assert INPUTS.tokenizer.decode(plan[0].ids) in prompts


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


def test_every_caption_is_used():
    drawn = {sample_of(make_record(), "uno", seed).plan[-1].caption for seed in range(20)}
    assert {INPUTS.tokenizer.decode(ids) for ids in drawn} == {"number 0", "no 0"}


@pytest.mark.parametrize("captions", [(), ("thing 0",)])
def test_without_another_caption_only_metaqueries_supervise(captions):
    sample = sample_of(make_record(captions=captions), "uno")
    assert sample.plan[-1].caption is None
    assert sample.plan[-1].query_pixels is not None
    assert sample.without_caption


def test_a_method_without_captions_reports_none_missing():
    assert not sample_of(make_record(captions=()), "sft").without_caption


@pytest.mark.parametrize(("method", "latent_share", "picture"), [
    ("pretrain", 1.0, CleanLatents), ("pretrain", 0.0, VitImage), ("uno", 1.0, VitImage),
])  # fmt: skip
def test_pretrain_shows_a_share_of_the_pictures_of_questions_as_latents(method, latent_share, picture):
    record = make_record(task="understanding", captions=(), answer="a")
    shown, question, answer = sample_of(record, method, latent_share=latent_share).plan
    assert isinstance(shown, picture)
    assert (question.answer, answer.answer) == (False, True)


def test_an_unreadable_picture_names_record_and_field():
    with pytest.raises(ValueError, match=r"record 'record0', field sources\[0\]"):
        sample_of(make_record(task="editing", sources=(b"x",)), "sft")


def test_the_record_in_the_example_of_lay_out_has_the_plan_shown_there():
    record = make_record(prompt="hi", captions=("c",), image=picture(width=32, height=16))
    inputs = Inputs(byte_tokenizer(), ImageTransform(32, 16, 16), VIT_TRANSFORM, ImageTransform(16, 8, 8))
    prompt, target = make_sample(record, MethodConfig(method="uno"), inputs, np.random.default_rng(0)).plan
    assert prompt == Text(ids=(71, 72), droppable=True)
    assert target.caption == (66,)
    assert (target.pixels.shape, target.query_pixels.shape) == ((16, 32, 3), (8, 16, 3))


@pytest.mark.parametrize("method", ["uno", "reca"])
def test_samples_with_reduced_pictures_have_the_same_sizes(method):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3, 3), np.uint8)
    large = io.BytesIO()
    Image.fromarray(pixels).resize((203, 121), Image.Resampling.BICUBIC).save(large, "JPEG", quality=95)
    record = make_record(task="editing", image=large.getvalue(), sources=(large.getvalue(),))
    plans = [
        make_sample(record, MethodConfig(method=method), inputs, np.random.default_rng(0)).plan
        for inputs in (INPUTS, dataclasses.replace(INPUTS, reduced_jpeg=True))
    ]
    for whole, reduced in zip(*plans, strict=True):
        if not isinstance(whole, Text):
            assert whole.pixels.shape == reduced.pixels.shape
            assert 0 < np.abs(whole.pixels.astype(int) - reduced.pixels).mean() < 6
