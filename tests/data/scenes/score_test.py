"""The scorer: judgements of drawn scenes, and what it sees in pictures that no scene has."""

from __future__ import annotations

import dataclasses
import functools
import itertools

import hypothesis
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from scipy import ndimage

from uno_jax.data.scenes.draw import draw_scene
from uno_jax.data.scenes.edits import edits_of
from uno_jax.data.scenes.facts import Kind, Number, OnGround, holds
from uno_jax.data.scenes.generate import CATEGORIES, make_example
from uno_jax.data.scenes.scene import COLOURS, GROUND_KINDS, GROUNDS, SHAPES, SIZES, Ground, Place, Scene, Thing
from uno_jax.data.scenes.score import judge, judge_edit
from uno_jax.data.scenes.see import UNKNOWN, find_things

SIDE = 64
WHITE = Ground("white", "plain")
CIRCLE = Thing("circle", "red", "small", Place(0.25, 0.25))
STAR = Thing("star", "blue", "large", Place(0.7, 0.7))
SQUARE = Thing("square", "green", "small", Place(0.75, 0.25))


@functools.cache
def examples(category: str, count: int):
    numbers = range(CATEGORIES.index(category), count * len(CATEGORIES), len(CATEGORIES))
    return [make_example(11, "test", number) for number in numbers]


@functools.cache
def pictures(category: str, count: int):
    return [draw_scene(example.scene, SIDE) for example in examples(category, count)]


def share_right_of_own(category: str, count: int) -> float:
    pairs = zip(examples(category, count), pictures(category, count), strict=True)
    return np.mean([judge(example.facts, example.total, pixels).right for example, pixels in pairs])


def share_agreed_of_others(category: str, count: int) -> float:
    asked = examples(category, count)
    shown = asked[1:] + asked[:1]
    drawn = pictures(category, count)[1:] + pictures(category, count)[:1]
    agreed = []
    for example, other, pixels in zip(asked, shown, drawn, strict=True):
        things = other.scene.things
        judgement = judge(example.facts, example.total, pixels)
        agreed.append(judgement.facts == tuple(holds(fact, things) for fact in example.facts))
        agreed.append(judgement.total == (len(things) == example.total))
    return np.mean(agreed)


@pytest.mark.parametrize("category", CATEGORIES)
def test_drawn_scenes_follow_their_own_prompts(category):
    assert share_right_of_own(category, 100) > 0.995


@pytest.mark.parametrize("category", CATEGORIES)
def test_facts_of_another_prompt_are_judged_as_the_contents_of_the_scene_say(category):
    assert share_agreed_of_others(category, 100) > 0.995


@pytest.mark.slow
@pytest.mark.parametrize("category", CATEGORIES)
def test_three_thousand_scenes_of_a_category_are_judged_right(category):
    assert share_right_of_own(category, 3000) > 0.995
    assert share_agreed_of_others(category, 3000) > 0.995


@functools.cache
def edits(count: int):
    return [edit for number in range(count) for edit in edits_of(make_example(12, "test", number))]


def test_results_of_edits_are_judged_right_and_their_sources_wrong():
    right, unedited = [], []
    for edit in edits(40):
        source, target = draw_scene(edit.source, SIDE), draw_scene(edit.target, SIDE)
        right.append(judge_edit(edit.facts, edit.total, edit.kept, source, target).right)
        unedited.append(judge_edit(edit.facts, edit.total, edit.kept, source, source).right)
    assert np.mean(right) > 0.995
    assert np.mean(unedited) < 0.005


def draw(*things: Thing, ground: Ground = WHITE, side: int = SIDE) -> np.ndarray:
    return draw_scene(Scene(things, ground), side).copy()


def kinds(pixels: np.ndarray) -> set[tuple[str, str, str]]:
    return {(seen.shape, seen.colour, seen.size) for seen in find_things(pixels)}


def kind(thing: Thing) -> tuple[str, str, str]:
    return thing.shape, thing.colour, thing.size


@st.composite
def things(choose) -> Thing:
    size = choose(st.sampled_from(tuple(SIZES)))
    along = st.floats(SIZES[size] / 2, 1 - SIZES[size] / 2)
    shape, colour = choose(st.sampled_from(SHAPES)), choose(st.sampled_from(tuple(COLOURS)))
    return Thing(shape, colour, size, Place(choose(along), choose(along)))


grounds = st.builds(Ground, st.sampled_from(tuple(GROUNDS)), st.sampled_from(GROUND_KINDS))


@given(things(), grounds, st.integers(32, 512))
@settings(max_examples=200)
def test_a_thing_of_any_kind_is_seen_in_its_place_on_any_ground_and_at_any_size(thing, ground, side):
    (seen,) = find_things(draw(thing, ground=ground, side=side))
    assert kind(seen) == kind(thing)
    assert seen.centre == pytest.approx(thing.centre, abs=0.01)


@given(things(), grounds)
@hypothesis.example(Thing("star", "blue", "large", Place(0.525390625, 0.30859375)), Ground("white", "plain"))
@settings(max_examples=50)
def test_the_box_and_area_of_a_thing_are_those_of_its_pixels(thing, ground):
    (seen,) = find_things(draw(thing, ground=ground))
    difference = np.abs(draw(thing, ground=ground).astype(int) - draw(ground=ground)).max(axis=-1)
    inked = difference > difference.max() / 2  # pixels that the thing covers by half or more
    rows, columns = np.nonzero(inked)
    expected = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert np.multiply(seen.box, SIDE) == pytest.approx(expected, abs=1.5)
    assert seen.area == pytest.approx(inked.mean(), rel=0.25)


@pytest.mark.parametrize("ground", itertools.starmap(Ground, itertools.product(GROUNDS, GROUND_KINDS)), ids=str)
def test_an_empty_ground_has_no_things(ground):
    assert find_things(draw(ground=ground)) == ()


def test_a_picture_of_one_colour_is_one_unknown_thing():
    (seen,) = find_things(np.full((SIDE, SIDE, 3), COLOURS["red"], np.uint8))
    assert (seen.shape, seen.colour, seen.area) == (UNKNOWN, "red", 1.0)


@pytest.mark.parametrize("side", [0.12, 0.7])
def test_a_shape_that_is_much_too_small_or_too_large_is_unknown(side):
    (seen,) = find_things(paint(rectangle(0.5 - side / 2, 0.5 - side / 2, 0.5 + side / 2, 0.5 + side / 2)))
    assert (seen.shape, seen.colour) == (UNKNOWN, "red")


def test_a_missing_an_extra_and_a_wrong_thing_make_a_judgement_wrong():
    facts = (Number(Kind("circle"), 1), Number(Kind("star", "blue"), 1))
    assert judge(facts, 2, draw(CIRCLE, STAR)).right
    assert not judge(facts, 2, draw(CIRCLE)).right
    extra = judge(facts, 2, draw(CIRCLE, STAR, SQUARE))
    assert all(extra.facts)
    assert not extra.total
    assert not extra.right
    wrong = judge(facts, 2, draw(CIRCLE, dataclasses.replace(STAR, colour="pink")))
    assert wrong.facts == (True, False)
    assert wrong.total


def test_facts_about_the_ground_are_refused():
    with pytest.raises(ValueError, match="ground"):
        judge((OnGround("white"),), 1, draw(CIRCLE))


def test_specks_are_no_things():
    pixels = draw(CIRCLE)
    pixels[40:, 40:][::6, ::6] = COLOURS["blue"]
    pixels[40:43, 10:13] = COLOURS["pink"]
    assert kinds(pixels) == {kind(CIRCLE)}


def paint(*outlines: list[tuple[float, float]], colour: tuple[int, int, int] = COLOURS["red"]) -> np.ndarray:
    """Paints polygons on white, with corners as fractions of the side."""
    large = Image.new("RGB", (8 * SIDE, 8 * SIDE), "white")
    for corners in outlines:
        ImageDraw.Draw(large).polygon([(8 * SIDE * x, 8 * SIDE * y) for x, y in corners], fill=colour)
    return np.asarray(large.resize((SIDE, SIDE), Image.Resampling.BOX))


def rectangle(left: float, top: float, right: float, bottom: float) -> list[tuple[float, float]]:
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


UNNAMED = {
    "rectangle": [rectangle(0.3, 0.4, 0.7, 0.6)],
    "bar": [rectangle(0.3, 0.45, 0.7, 0.53)],
    "corner": [rectangle(0.3, 0.3, 0.4, 0.7), rectangle(0.3, 0.6, 0.7, 0.7)],
    "triangle upside down": [[(0.3, 0.3), (0.7, 0.3), (0.5, 0.66)]],
    "triangle on its side": [[(0.3, 0.3), (0.3, 0.7), (0.66, 0.5)]],
    "half disc": [[(0.5 - 0.2 * np.cos(a), 0.5 - 0.2 * np.sin(a)) for a in np.linspace(0, np.pi)]],
    "ellipse": [[(0.5 + 0.2 * np.cos(a), 0.5 + 0.11 * np.sin(a)) for a in np.linspace(0, 2 * np.pi)]],
    "three joined squares": [rectangle(0.2, 0.4, 0.8, 0.6)],
}


@pytest.mark.parametrize("outlines", UNNAMED.values(), ids=UNNAMED.keys())
def test_an_outline_without_a_name_is_one_thing_of_unknown_shape(outlines):
    (seen,) = find_things(paint(*outlines))
    assert (seen.shape, seen.colour) == (UNKNOWN, "red")
    assert judge((Number(Kind(colour="red"), 1),), 1, paint(*outlines)).right
    assert not any(holds(Number(Kind(shape), 1), [seen]) for shape in SHAPES)


def turned(shape: str, size: str, degrees: float) -> np.ndarray:
    large = Image.fromarray(draw(Thing(shape, "red", size, Place(0.5, 0.5)), side=4 * SIDE))
    return np.asarray(large.rotate(degrees, Image.Resampling.BICUBIC, fillcolor="white").reduce(4))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shape", ["square", "triangle", "star", "heart", "cross", "diamond"])
def test_a_turned_shape_is_not_mistaken_for_another_one(shape, size):
    for degrees in range(-30, 31, 5):
        (seen,) = find_things(turned(shape, size, degrees))
        assert seen.shape in (shape, UNKNOWN), degrees
        assert seen.shape == shape or abs(degrees) > 5, degrees


@pytest.mark.parametrize("rgb", [(255, 0, 255), (170, 190, 140)])
def test_a_colour_without_a_name_is_unknown(rgb):
    (seen,) = find_things(paint(rectangle(0.3, 0.3, 0.65, 0.65), colour=rgb))
    assert (seen.shape, seen.colour) == ("square", UNKNOWN)


def test_touching_things_of_different_colours_are_two():
    left = dataclasses.replace(SQUARE, centre=Place(0.4, 0.5))
    right = dataclasses.replace(STAR, size="small", centre=Place(0.4 + 0.85 * 0.26, 0.5))
    assert kinds(draw(left, right)) == {kind(left), kind(right)}


def test_things_of_one_colour_joined_by_a_thin_bridge_are_two():
    circles = [dataclasses.replace(CIRCLE, centre=Place(x, 0.5)) for x in (0.25, 0.65)]
    pixels = draw(*circles)
    pixels[31:33, 20:38] = COLOURS["red"]
    assert [seen.shape for seen in find_things(pixels)] == ["circle", "circle"]


def test_things_that_melt_into_each_other_are_one_unknown_thing():
    overlapping = [dataclasses.replace(SQUARE, centre=Place(x, y)) for x, y in ((0.4, 0.4), (0.52, 0.55))]
    (seen,) = find_things(draw(*overlapping))
    assert seen.shape == UNKNOWN


@given(things(), grounds, st.integers(0, 100))
@settings(max_examples=60)
def test_a_little_blur_noise_and_shift_of_colour_change_nothing(thing, ground, seed):
    rng = np.random.default_rng(seed)
    blurred = ndimage.gaussian_filter(draw(thing, ground=ground).astype(float), (1, 1, 0), mode="nearest")
    changed = blurred * rng.uniform(0.85, 1.15) + rng.normal(0, 8, 3) + rng.normal(0, 8, blurred.shape)
    assert kinds(np.clip(changed, 0, 255).astype(np.uint8)) == {kind(thing)}


def recoloured(thing: Thing) -> bool:
    """Whether an edit that paints the circle red counts as exact if it also turns STAR into `thing`."""
    blue = dataclasses.replace(CIRCLE, colour="blue")
    facts = (Number(Kind("circle", "red"), 1),)
    return judge_edit(facts, 2, (STAR,), draw(blue, STAR), draw(CIRCLE, thing)).right


def test_an_edit_must_leave_the_other_things_as_they_were():
    assert recoloured(STAR)
    assert recoloured(dataclasses.replace(STAR, centre=Place(0.68, 0.71)))
    assert not recoloured(dataclasses.replace(STAR, centre=Place(0.6, 0.7)))
    assert not recoloured(dataclasses.replace(STAR, shape="heart"))
    assert not recoloured(dataclasses.replace(STAR, colour="pink"))
    assert not recoloured(dataclasses.replace(STAR, size="small"))


def test_an_edit_must_add_nothing_else():
    facts = (Number(Kind("circle", "red"), 1),)
    assert not judge_edit(facts, 2, (STAR,), draw(STAR), draw(CIRCLE, STAR, SQUARE)).right


@pytest.mark.parametrize("before", itertools.starmap(Ground, itertools.product(GROUNDS, GROUND_KINDS)), ids=str)
def test_an_edit_must_keep_the_ground(before):
    noise = np.random.default_rng(0).normal(0, 10, (SIDE, SIDE, 3))
    for after in itertools.starmap(Ground, itertools.product(GROUNDS, GROUND_KINDS)):
        edited = np.clip(draw(STAR, ground=after) + noise, 0, 255).astype(np.uint8)
        judgement = judge_edit((), 1, (STAR,), draw(CIRCLE, STAR, ground=before), edited)
        assert judgement.ground == (before == after), after
