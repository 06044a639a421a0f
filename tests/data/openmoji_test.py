"""The embedded dataset: natural captions, valid edits, and disjoint splits."""

import hashlib
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from uno_jax.data.openmoji import dataset as openmoji
from uno_jax.data.openmoji.edits import all_edits
from uno_jax.data.openmoji.glyphs import all_glyphs, rasterise, read_glyph
from uno_jax.data.openmoji.text import captions_of, main_colours, prompt_of, with_article

GLYPHS = list(all_glyphs())
CLOCKS = [f"{0x1F550 + hour:X}" for hour in range(12)]


def prompt(stem):
    return prompt_of(read_glyph(stem))


def instructions(*stems):
    return {(e.source.stem, e.target.stem): e.instruction for e in all_edits([read_glyph(stem) for stem in stems])}


# Captions


@pytest.mark.parametrize(
    ("stem", "expected"),
    [
        ("1F34B", "a lemon"),
        ("1F9C5", "an onion"),
        ("1F352", "cherries"),
        ("1F984", "a unicorn"),
        ("1F9D0", "a face with a monocle"),
        ("1F3C3-200D-2640-FE0F", "a woman running"),
        ("1F3C3-1F3FF-200D-2640-FE0F-200D-27A1-FE0F", "a woman with dark skin running, facing right"),
        ("1F468-1F3FB-200D-1F9B0", "a man with light skin and red hair"),
        ("1F469-1F3FD-200D-1F33E", "a female farmer with medium skin"),
        ("1F44B-1F3FE", "a waving hand with medium-dark skin"),
        ("1F1EF-1F1F5", "the flag of Japan"),
        ("1F1FA-1F1F8", "the flag of the United States"),
        ("1F558", "a clock that shows nine o'clock"),
        ("0037-FE0F-20E3", "a keycap with the number 7"),
        ("1F468-200D-1F467-200D-1F467", "a family of a man and two girls"),
        (
            "1F468-1F3FB-200D-1F91D-200D-1F468-1F3FF",
            "two men holding hands, the left one with light skin and the right one with dark skin",
        ),
        ("1F46B-1F3FD", "a woman and a man with medium skin holding hands"),
        ("1FAD9-200D-1F7E6", "a jar of blue jam"),
    ],
)
def test_prompts_read_like_captions(stem, expected):
    assert prompt(stem) == expected


def test_captions_paraphrase_the_prompt():
    captions = captions_of(read_glyph("1F3C4-1F3FB-200D-2642-FE0F"), rasterise("1F3C4-1F3FB-200D-2642-FE0F", 64))
    assert captions[0] == "a gentleman with a pale complexion riding a wave on a board"


def test_captions_name_the_main_colours():
    assert "red" in captions_of(read_glyph("2764"), rasterise("2764", 64))[-1]


def test_colours_are_those_with_the_largest_area():
    picture = Image.new("RGB", (10, 10), "#ea5a47")
    picture.paste(Image.new("RGB", (10, 3), "#92d3f5"))
    assert main_colours(picture) == ("red", "blue")


def test_colours_of_an_empty_picture_are_none():
    assert main_colours(Image.new("RGB", (4, 4), "white")) == ()


@given(st.sampled_from(GLYPHS))
def test_every_prompt_is_one_clean_line(glyph):
    text = prompt_of(glyph)
    assert text == " ".join(text.split())
    assert not set(text) & set("{}_:")


@pytest.mark.parametrize(
    ("noun", "expected"), [("hourglass", "an hourglass"), ("euro banknote", "a euro banknote"), ("jeans", "jeans")]
)
def test_articles(noun, expected):
    assert with_article(noun) == expected


def test_drawings_without_a_name_are_skipped():
    assert read_glyph("E002") is None


# Base emoji


def test_tone_gender_hair_and_facing_do_not_change_the_base_emoji():
    man_dark = read_glyph("1F468-1F3FF-200D-1F9B0")
    assert {man_dark.base, read_glyph("1F469").base, read_glyph("1F9D4").base} == {"1F9D1"}
    running = ["1F3C3", "1F3C3-1F3FB-200D-2640-FE0F", "1F3C3-200D-27A1-FE0F"]
    assert len({read_glyph(stem).base for stem in running}) == 1


def test_different_things_are_different_base_emoji():
    assert read_glyph("1F34B").base != read_glyph("1F34A").base


# Edits


def test_skin_tones_are_edited_to_the_tone_of_the_target():
    assert "dark" in instructions("1F44B-1F3FB", "1F44B-1F3FF")["1F44B-1F3FB", "1F44B-1F3FF"]


def test_an_edit_goes_both_ways():
    assert set(instructions("1F512", "1F513").values()) == {"open the lock", "close the lock"}


def test_clock_faces_are_edited_to_the_hour_of_the_target():
    assert instructions("1F550", "1F553")["1F550", "1F553"].endswith("four o'clock")


def test_colours_directions_and_hair_are_edited():
    assert "blue" in instructions("2764", "1F499")["2764", "1F499"]
    assert "up" in instructions("2B07", "2B06")["2B07", "2B06"]
    facing = instructions("1F6B6", "1F6B6-200D-27A1-FE0F")
    assert "right" in facing["1F6B6", "1F6B6-200D-27A1-FE0F"]
    assert "left" in facing["1F6B6-200D-27A1-FE0F", "1F6B6"]
    hair = instructions("1F468", "1F468-200D-1F9B2")["1F468", "1F468-200D-1F9B2"]
    assert any(word in hair for word in ("bald", "remove", "shave"))


def test_in_a_couple_one_tone_changes_at_a_time():
    tones = [("1F3FB", "1F3FC"), ("1F3FB", "1F3FD"), ("1F3FE", "1F3FF")]
    one, other, both = (f"1FAF1-{left}-200D-1FAF2-{right}" for left, right in tones)
    assert set(instructions(one, other, both)) == {(one, other), (other, one)}


def test_unrelated_things_are_never_paired():
    assert instructions("1F34B", "1F697") == {}


def test_edit_ids_are_unique_and_stable():
    ids = [edit.id for edit in all_edits([read_glyph(stem) for stem in CLOCKS])]
    assert len(set(ids)) == len(ids) == 12 * 11
    assert ids[0] == "openmoji/edit/clock/1F550/1F551"


# The dataset


def test_identical_pictures_are_kept_once():
    same = [read_glyph("1F3C3-200D-2642-FE0F"), read_glyph("1F3C3-200D-2642-FE0F")]
    assert len(list(openmoji.render(same, 32))) == 1


def test_pictures_are_rgb_of_the_requested_size_on_white():
    (rendered,) = openmoji.render([read_glyph("1F34B")], 48)
    picture = Image.open(io.BytesIO(rendered.png))
    assert (picture.mode, picture.size, picture.getpixel((0, 0))) == ("RGB", (48, 48), (255, 255, 255))


@pytest.fixture(scope="module")
def splits():
    rendered = list(openmoji.render(openmoji.by_claim(GLYPHS), 64))
    return {split: list(openmoji.records(rendered, split)) for split in ("train", "test")}


def pictures(records):
    pixels = {}
    for record in records:
        for encoded in (record.image, *record.sources):
            pixels.setdefault(encoded, None)
    return {hashlib.sha256(np.asarray(Image.open(io.BytesIO(encoded))).tobytes()).hexdigest() for encoded in pixels}


def stems(records):
    return {stem for record in records for stem in record.id.split("/")[2 if record.task == "text_to_image" else 3 :]}


def test_train_and_test_share_no_picture(splits):
    assert not pictures(splits["train"]) & pictures(splits["test"])


def test_train_and_test_share_no_base_emoji(splits):
    train, test = ({read_glyph(stem).base for stem in stems(splits[name])} for name in ("train", "test"))
    assert not train & test


def test_no_two_records_for_images_have_the_same_picture(splits):
    images = [r.image for records in splits.values() for r in records if r.task == "text_to_image"]
    assert len(set(images)) == len(images)


def test_there_are_thousands_of_images_and_over_ten_thousand_edits(splits):
    every = [record.task for records in splits.values() for record in records]
    assert every.count("text_to_image") > 3700
    assert every.count("editing") > 10000


def test_about_one_record_in_twenty_is_held_out(splits):
    assert 0.03 < len(splits["test"]) / len(splits["train"]) < 0.07


def test_edits_change_the_picture(splits):
    assert all(record.image not in record.sources for records in splits.values() for record in records)


def test_every_record_has_a_caption_that_is_not_the_prompt(splits):
    for records in splits.values():
        assert all(record.captions and record.prompt not in record.captions for record in records)


def test_ids_are_unique(splits):
    ids = [record.id for records in splits.values() for record in records]
    assert len(set(ids)) == len(ids)


def test_the_license_is_stated():
    assert "CC BY-SA 4.0" in openmoji.LICENSE
