"""The Python API: dependencies of pictures and answers, and batching."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from tests.helpers.made_up_plans import latents_of
from tests.helpers.small_loaded import QUICK_SETTINGS, small_generator
from uno_jax.data.plans import CleanLatents, Text, VitImage
from uno_jax.inference.contexts import context_plan, read_picture
from uno_jax.inference.generate import Generator, Request
from uno_jax.inference.picture_settings import PictureSettings, picture_size
from uno_jax.inference.thinking import ThinkingConfig, split_thought
from uno_jax.process.errors import UserError
from uno_jax.sampling.text import TextConfig

pytestmark = pytest.mark.usefixtures("quick_compiles")

GENERATOR = small_generator()
MODEL = GENERATOR.reader.model
SOURCE = latents_of(1, 2, seed=3)  # 8 x 16 pixels
TEXT = TextConfig(max_length=7)


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


def alike(one: Image.Image, other: Image.Image) -> bool:
    """Whether two images are equal up to rounding of their pixels."""
    return one.size == other.size and np.abs(pixels(one) - pixels(other)).max() <= 1


# Pictures


def test_a_picture_depends_on_prompt_and_seed_but_not_on_the_batch():
    together = GENERATOR.generate_images(["thing", "number thing", "thing"], QUICK_SETTINGS, seeds=[0, 0, 1])
    [alone] = GENERATOR.generate_images(["number thing"], QUICK_SETTINGS)
    assert alike(together[1].image, alone.image)
    assert not alike(together[0].image, together[1].image)
    assert not alike(together[0].image, together[2].image)


def test_an_edit_has_the_size_of_its_last_picture_and_depends_on_all_of_them():
    last = latents_of(2, 1)
    drawings = GENERATOR.edit_images([[SOURCE, last], [SOURCE // 2, last]], ["thing", "thing"], QUICK_SETTINGS)
    assert [drawing.image.size for drawing in drawings] == [(8, 16)] * 2
    assert not alike(drawings[0].image, drawings[1].image)


def test_texts_and_pictures_may_come_in_any_order():
    [(_, one), (_, other)] = GENERATOR.generate(
        [
            Request(("number", SOURCE, "thing"), QUICK_SETTINGS),
            Request((SOURCE, "number", "thing"), QUICK_SETTINGS),
        ]
    )
    assert one.image.size == other.image.size == (16, 8)
    assert not alike(one.image, other.image)


def test_a_negative_prompt_changes_only_the_picture_of_its_row():
    negative = dataclasses.replace(QUICK_SETTINGS, negative="number")
    plain, led_away = GENERATOR.generate_images(["thing", "thing"], [QUICK_SETTINGS, negative])
    assert not alike(plain.image, led_away.image)
    assert alike(plain.image, GENERATOR.generate_images(["thing"], QUICK_SETTINGS)[0].image)


def test_requests_with_different_settings_are_in_separate_batches():
    def request(*context, **settings) -> Request:
        return Request(context or ("thing",), PictureSettings(**settings))

    requests = [
        request(),
        request(timesteps=9),
        request("other", seed=4, negative="number"),
        request(SOURCE, "thing", size="16x16"),
        request(size="16x16", seed=1),
        request(size="32x32"),
    ]
    assert GENERATOR.batches(requests) == [[0, 2, 4], [1], [3], [5]]
    assert GENERATOR.batches(requests, batch_size=2) == [[0, 2], [1], [3], [4], [5]]


def test_argument_lists_of_different_lengths_are_an_error():
    with pytest.raises(ValueError, match="1 images and 2 instructions: expected equal numbers"):
        GENERATOR.edit_images([SOURCE], ["a", "b"])
    with pytest.raises(ValueError, match="2 prompts and 1 seeds"):
        GENERATOR.generate_images(["a", "b"], seeds=[1])


def test_empty_settings_and_pictures_are_an_error():
    with pytest.raises(ValueError, match="1 prompts and 0 settings"):
        GENERATOR.generate_images(["thing"], [])
    with pytest.raises(ValueError, match="edit 1 has no pictures: give at least one"):
        GENERATOR.edit_images([SOURCE, []], ["thing", "thing"])


def test_a_str_instead_of_a_list_is_an_error():
    with pytest.raises(ValueError, match=r"prompts is 'thing': expected a list, such as \['thing'\]"):
        GENERATOR.generate_images("thing", QUICK_SETTINGS)
    with pytest.raises(ValueError, match="instructions is 'a': expected a list"):
        GENERATOR.edit_images([SOURCE], "a", QUICK_SETTINGS)
    with pytest.raises(ValueError, match="images is 'a': expected a list"):
        GENERATOR.answer("a", ["thing"], TEXT)
    with pytest.raises(ValueError, match="stop is 'yes': expected a list"):
        GENERATOR.answer([SOURCE], [""], TEXT, stop="yes")


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_size_below_1_is_an_error(size):
    with pytest.raises(ValueError, match=f"batch_size is {size}: expected at least 1"):
        GENERATOR.generate_images(["thing"], QUICK_SETTINGS, batch_size=size)
    with pytest.raises(ValueError, match=f"batch_size is {size}: expected at least 1"):
        GENERATOR.answer([SOURCE], [""], TEXT, batch_size=size)


# Context tokens


def tokens_read(generator: Generator, *context, **settings) -> tuple[int, int, int]:
    """Counts the tokens read for the context, and for the contexts of text and image guidance."""
    request = Request(context, dataclasses.replace(QUICK_SETTINGS, **settings))
    inputs = generator.prepare([request]).inputs
    compared = [other.rest if other else None for other in (inputs.without_text, inputs.without_image)]
    counts = [
        int((batch.understanding.sample > 0).sum() + (batch.generation.sample > 0).sum()) if batch else 0
        for batch in (inputs.context, *compared)
    ]
    return counts[0], counts[1], counts[2]


def test_contexts_of_guidance_are_read_only_if_a_step_needs_them():
    edit = (SOURCE, "thing")
    context, negative, texts = tokens_read(GENERATOR, *edit, negative="number")
    assert (negative, texts) == (5, 3)  # two of each are delimiters
    assert tokens_read(GENERATOR, *edit) == (context, 0, texts)
    assert tokens_read(GENERATOR, *edit, negative="number", image_scale=1.0) == (context, negative, 0)
    assert tokens_read(GENERATOR, *edit, negative="number", text_scale=1.0) == (context, 0, 0)
    # Times 1 and 0.5.
    assert tokens_read(GENERATOR, *edit, negative="number", interval=(0.1, 0.4)) == (context, 0, 0)


def test_after_thinking_only_the_thought_is_read():
    """System prompt and prompt are already in the cache, which guidance shares."""
    thinker = dataclasses.replace(GENERATOR, thinking=ThinkingConfig(drawing_prompt="number", text=TEXT))
    assert tokens_read(thinker, "thing", think=True) == (TEXT.max_length - 1 + 2, 0, 0)


# Sizes


@pytest.mark.parametrize(
    ("settings", "last", "expected"),
    [
        ({}, None, (16, 16)),
        ({}, (8, 16), (8, 16)),
        ({"aspect": "2:1"}, (8, 16), (8, 16)),
        ({"aspect": "1:2"}, (8, 16), (16, 8)),
        ({"aspect": "4:3"}, None, (16, 16)),  # 12 rounds to even, in units of 8
        ({"size": "24x32"}, (8, 16), (32, 24)),
    ],
)
def test_a_size_is_explicit_or_follows_from_aspect_or_last_picture(settings, last, expected):
    assert picture_size(PictureSettings(**settings), MODEL.config, MODEL.vae_transform, last) == expected


@pytest.mark.parametrize("size", ["12x16", "16x40"])
def test_an_unsupported_size_is_an_error(size):
    with pytest.raises(ValueError, match=f"size is {size}: expected multiples of 8 of at most 32 pixels"):
        GENERATOR.generate_images(["thing"], PictureSettings(size=size))


@pytest.mark.parametrize(
    ("field", "value"),
    [("size", "16"), ("size", "0x16"), ("aspect", "4x3"), ("seed", -1), ("seed", 2**31), ("timesteps", 1)],
)
def test_invalid_settings_are_named(field, value):
    with pytest.raises(ValueError, match=f"{field} is "):
        PictureSettings(**{field: value})


# Contexts


def test_a_picture_is_read_as_latents_and_patches_for_pictures_and_as_patches_for_text():
    parts = ("thing", np.zeros((30, 60, 3), np.uint8))
    text, latents, patches = context_plan(parts, MODEL, latents=True)
    assert (type(text), type(latents), type(patches)) == (Text, CleanLatents, VitImage)
    assert latents.pixels.shape == (8, 16, 3)
    # The ViT transform applies to the output of the autoencoder's transform, as in BAGEL's public implementation.
    assert patches.pixels.shape == (4, 8, 3)
    assert [type(item) for item in context_plan(parts, MODEL, latents=False)] == [Text, VitImage]


def test_pictures_may_be_files_images_or_arrays(tmp_path):
    Image.fromarray(SOURCE).save(tmp_path / "source.png")
    for picture in (tmp_path / "source.png", str(tmp_path / "source.png"), Image.fromarray(SOURCE), SOURCE):
        np.testing.assert_array_equal(read_picture(picture), SOURCE)


def test_a_photo_is_rotated_upright():
    photo = Image.fromarray(SOURCE)
    photo.getexif()[0x0112] = 3  # upside down
    np.testing.assert_array_equal(read_picture(photo), SOURCE[::-1, ::-1])


def test_an_invalid_picture_is_named(tmp_path):
    (tmp_path / "damaged.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"picture of edit 0: .*damaged\.png: not a picture"):
        GENERATOR.edit_images([tmp_path / "damaged.png"], ["thing"])
    with pytest.raises(ValueError, match=r"missing\.png: cannot be read \(No such file"):
        read_picture(tmp_path / "missing.png")
    Image.fromarray(SOURCE).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:60])
    with pytest.raises(ValueError, match=r"picture: the picture is damaged \(image file is truncated"):
        read_picture(Image.open(tmp_path / "cut.png"))
    with pytest.raises(ValueError, match=r"picture is a float64 array of shape \(2, 2\); expected uint8"):
        read_picture(np.zeros((2, 2)))


def test_an_invalid_picture_of_a_context_is_named_by_its_number(tmp_path):
    """Only pictures are counted, because a context may begin with a system prompt."""
    with pytest.raises(ValueError, match="picture 2 of the context: "):
        context_plan(("number", SOURCE, "thing", tmp_path / "missing.png"), MODEL, latents=True)


# Answers


def test_an_answer_depends_on_its_context_but_not_on_the_batch():
    contexts, questions = [SOURCE, ("number", latents_of(2, 2))], ["", "thing"]
    together = GENERATOR.answer(contexts, questions, TEXT)
    assert together[1:2] == GENERATOR.answer(contexts[1:2], questions[1:2], TEXT)
    assert together[0] != together[1]


def test_a_streamed_text_equals_the_text_written_at_once():
    reader = GENERATOR.reader
    read = reader.read([context_plan((SOURCE,), MODEL, latents=False)], [0])
    [[whole]] = reader.write(read, TEXT, [0])
    streamed = [ids for [ids] in reader.write(read, TEXT, [0], at_once=2)]
    assert [len(ids) for ids in streamed] == [2, 4, 6]
    assert streamed[-1] == whole
    assert all(whole[: len(ids)] == ids for ids in streamed)


def test_lengths_of_one_bucket_share_their_programs(caplog):
    """18 and 23 tokens including the start token: the bucket of both is 24 tokens after it."""
    reader = GENERATOR.reader
    read = reader.read([context_plan((SOURCE,), MODEL, latents=False)], [0])
    with jax.log_compiles(), caplog.at_level(logging.WARNING, logger="jax"):
        [[longer]] = reader.write(read, TextConfig(max_length=23), [0])
        assert "Compiling" in caplog.text
        caplog.clear()
        [[shorter]] = reader.write(read, TextConfig(max_length=18), [0])
        assert "Compiling" not in caplog.text
    assert (len(shorter), len(longer)) == (17, 22)
    assert longer[:17] == shorter


def test_a_stop_token_ends_an_answer():
    reader = GENERATOR.reader
    read = reader.read([context_plan((SOURCE,), MODEL, latents=False)], [0])
    [[whole]] = reader.write(read, TEXT, [0])
    [[stopped]] = reader.write(read, TEXT, [0], stop=(whole[3],))
    assert stopped == whole[: whole.index(whole[3])]
    with pytest.raises(ValueError, match="stop 'thing number' is not one token"):
        GENERATOR.answer([SOURCE], [""], TEXT, stop=["thing number"])


def test_reading_in_two_steps_equals_reading_in_one():
    reader = GENERATOR.reader
    plan = context_plan(("number", SOURCE, "thing"), MODEL, latents=True)
    in_two = reader.read([plan], [5], reader.read([plan[:1]], [5]))
    [[once]], [[twice]] = (reader.write(read, TEXT, [0]) for read in (reader.read([plan], [5]), in_two))
    assert once == twice


@pytest.mark.parametrize("seed", [-1, 2**31])
def test_a_seed_out_of_range_is_an_error(seed):
    with pytest.raises(ValueError, match=f"seed is {seed}: expected 0 to"):
        GENERATOR.answer([SOURCE], [""], TEXT, seeds=[seed])


# Thinking


def test_a_thought_follows_the_system_prompt_and_is_in_the_context_of_the_picture():
    """Without guidance, a picture depends only on its context: system prompt, prompt, thought."""
    one_token = TextConfig(max_length=2)
    thinking = ThinkingConfig(drawing_prompt="number", text=one_token)
    unguided = dataclasses.replace(QUICK_SETTINGS, text_scale=1.0)
    thinker = dataclasses.replace(GENERATOR, thinking=thinking)
    [drawn] = thinker.generate_images(["thing"], dataclasses.replace(unguided, think=True))
    [thought] = GENERATOR.answer([("number", "thing")], [""], one_token)
    assert drawn.thought == thought.text != ""
    [(_, expected)] = GENERATOR.generate([Request(("number", "thing", drawn.thought), unguided)])
    assert alike(drawn.image, expected.image)


def test_contexts_of_guidance_do_not_contain_the_thought():
    """Guidance leads towards the thought, as in BAGEL's public implementation."""
    thinker = dataclasses.replace(GENERATOR, thinking=ThinkingConfig(drawing_prompt="number", text=TEXT))
    request = Request(("thing",), dataclasses.replace(QUICK_SETTINGS, think=True))
    [plan] = thinker.prepare([request]).plans
    assert plan.context[:2] == context_plan(("number", "thing"), MODEL, latents=True)
    assert len(plan.context) == 3
    assert plan.without_text == plan.context[:1]
    assert plan.without_image == plan.context[:2]


def test_a_text_is_split_into_thought_and_answer():
    assert split_thought("<think> it is round </think> a ball") == ("it is round", "a ball")
    assert split_thought("a ball") == ("", "a ball")
    assert split_thought("<think> it is") == ("it is", "")


def test_thinking_before_an_answer_reads_the_system_prompt_first():
    thinker = dataclasses.replace(GENERATOR, thinking=ThinkingConfig(answering_prompt="number"))
    assert thinker.answering_plan(("thing",), think=True) == context_plan(("number", "thing"), MODEL, latents=False)
    assert thinker.answering_plan(("thing",)) == context_plan(("thing",), MODEL, latents=False)


def test_a_text_in_a_prompt_never_becomes_a_delimiter():
    [text] = context_plan(("a<|im_end|><|vision_start|>b",), MODEL, latents=True)
    assert not set(text.ids) & MODEL.tokenizer.added
    assert MODEL.tokenizer.decode(text.ids) == "a<|im_end|><|vision_start|>b"


def test_contexts_above_the_context_length_are_refused_before_anything_is_read():
    nothing = Path("missing.png")  # reading it would be another error
    limit = MODEL.config.decoder.context_length
    for parts in ((nothing, "thing " * 20_000), ("thing",) * (limit // 2), ("x" * 10**7,)):
        with pytest.raises(UserError, match=rf"more than the context length of {limit:,} of this model: shorten"):
            context_plan(parts, MODEL, latents=True)
    with pytest.raises(UserError, match=rf"3 positions, and up to {limit:,} are to be written after it"):
        small_generator().answer([("thing",)], [""], TextConfig(max_length=limit))
    with pytest.raises(UserError, match="context length"):
        small_generator().generate_images(["thing"], dataclasses.replace(QUICK_SETTINGS, negative="thing " * 20_000))


def test_a_picture_that_is_not_finite_is_an_error():
    with pytest.raises(FloatingPointError, match=r"not finite\. Lower text_scale"):
        GENERATOR.generate_images(["thing"], dataclasses.replace(QUICK_SETTINGS, text_scale=2.9e38))
