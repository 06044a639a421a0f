"""Texts of scenes: every one states what is so, and is read back exactly."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uno_jax.data.scenes.facts import Kind, Location, Number, OnGround, Relation
from uno_jax.data.scenes.generate import SPLITS, make_example
from uno_jax.data.scenes.scene import Ground, Place, Scene, Thing
from uno_jax.data.scenes.text import MOST_WORDS, caption_is_right, read_facts
from uno_jax.data.scenes.words import (
    AREA_WORDS,
    COLOUR_WORDS,
    GROUND_KIND_WORDS,
    GROUND_WORDS,
    NUMBER_WORDS,
    SHAPE_WORDS,
    SIZE_WORDS,
    article,
)

EXAMPLES = st.builds(make_example, st.integers(0, 99), st.sampled_from(SPLITS), st.integers(0, 10**6))

SCENE = Scene(
    (Thing("star", "red", "large", Place(0.25, 0.25)), Thing("circle", "blue", "small", Place(0.75, 0.8))),
    Ground("dark", "texture"),
)
STARS = Scene(
    (
        Thing("star", "red", "small", Place(0.2, 0.2)),
        Thing("star", "red", "small", Place(0.5, 0.2)),
        Thing("star", "blue", "small", Place(0.8, 0.8)),
    ),
    Ground("white", "plain"),
)


@given(EXAMPLES)
def test_every_prompt_is_read_back_to_its_facts(example):
    assert read_facts(example.prompt) == example.facts


@given(EXAMPLES)
def test_every_prompt_and_caption_is_right_for_its_scene(example):
    assert all(caption_is_right(text, example.scene) for text in (example.prompt, *example.captions))


@given(EXAMPLES)
def test_captions_are_three_to_five_other_texts(example):
    assert 3 <= len(example.captions) <= 5
    assert len({example.prompt, *example.captions}) == 1 + len(example.captions)


@given(EXAMPLES)
def test_captions_are_short(example):
    assert all(len(re.findall(r"\w+|[,:;]", text)) <= MOST_WORDS for text in example.captions)


@given(EXAMPLES)
def test_captions_say_the_colours_of_the_prompt(example):
    colours = {fact.kind.colour for fact in example.facts if isinstance(fact, Number)} - {None}
    for caption in example.captions:
        assert colours <= {fact.kind.colour for fact in read_facts(caption) if isinstance(fact, Number)}


@given(EXAMPLES)
def test_captions_of_a_relation_say_it_or_say_where_all_things_are(example):
    if any(isinstance(fact, Relation) for fact in example.facts):
        for caption in example.captions:
            facts = read_facts(caption)
            places = sum(isinstance(fact, Location) for fact in facts)
            assert places == 2 or any(isinstance(fact, Relation) for fact in facts)


def test_most_captions_say_more_than_the_prompt():
    examples = [make_example(0, "train", number) for number in range(120)]
    more = [len(said(c)) > len(said(e.prompt)) for e in examples for c in e.captions]
    assert np.mean(more) > 0.8


def said(text):
    """The attributes, areas and grounds that a text states."""
    facts = read_facts(text)
    kinds = [fact.kind for fact in facts if isinstance(fact, Number)]
    attributes = [(kind, part) for kind in kinds for part in (kind.colour, kind.size) if part]
    others = [fact for fact in facts if not isinstance(fact, Number)]
    return attributes + others


TABLES = {
    "colour": [words for words in COLOUR_WORDS.values()],
    "shape": [[noun.one for noun in nouns] for nouns in SHAPE_WORDS.values()],
    "shapes": [[noun.many for noun in nouns] for nouns in SHAPE_WORDS.values()],
    "number": [[word] for word in NUMBER_WORDS.values()],
    "size": list(SIZE_WORDS.values()),
    "area": list(AREA_WORDS.values()),
    "ground": list(GROUND_WORDS.values()),
    "ground kind": list(GROUND_KIND_WORDS.values()),
}


@pytest.mark.parametrize("table", TABLES)
@given(example=EXAMPLES, data=st.data())
def test_a_caption_with_one_word_changed_is_wrong(table, example, data):
    caption = data.draw(st.sampled_from(example.captions))
    words = {word: group for group in TABLES[table] for word in group}
    pattern = "|".join(sorted(words, key=len, reverse=True))
    found = list(re.finditer(rf"\b({pattern})\b(?! (?:corner|left|right))", caption))
    if found:
        match = data.draw(st.sampled_from(found))
        other = data.draw(st.sampled_from([w for w, group in words.items() if group is not words[match[0]]]))
        changed = caption[: match.start()] + other + caption[match.end() :]
        changed = re.sub(r"\ban? (\w+)", lambda m: f"{article(m[1])} {m[1]}", changed)
        assert not caption_is_right(changed, example.scene), changed


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("a star", (Number(Kind("star"), 1),)),
        ("three stars", (Number(Kind("star"), 3),)),
        ("an orange disc", (Number(Kind("circle", "orange"), 1),)),
        (
            "a star to the left of a hoop",
            (Number(Kind("star"), 1), Number(Kind("ring"), 1), Relation(Kind("star"), "left of", Kind("ring"))),
        ),
        (
            "a star with a hoop to its left",
            (Number(Kind("star"), 1), Number(Kind("ring"), 1), Relation(Kind("star"), "right of", Kind("ring"))),
        ),
        ("three stars, two red and one blue", (Number(Kind("star", "red"), 2), Number(Kind("star", "blue"), 1))),
        (
            "on a checkered dark ground, there is a star: the star is large, red and at the top",
            (
                Number(Kind("star", "red", "large"), 1),
                Location(Kind("star", "red", "large"), "top"),
                OnGround("dark", "texture"),
            ),
        ),
        (
            "at the top is a star and at the left are two stars",
            (Number(Kind("star"), 3), Location(Kind("star"), "top"), Location(Kind("star"), "left", 2)),
        ),
    ],
)
def test_texts_are_read(text, facts):
    assert read_facts(text) == facts


@pytest.mark.parametrize(
    "text",
    [
        "",
        "star",
        "a stars",
        "two star",
        "a orange star",
        "an red star",
        "a red",
        "a red red star",
        "a star a circle",
        "a star, a circle",
        "a star and",
        "a star and a red star",
        "a star left of a star",
        "a star left of a circle above a ring",
        "two stars with a circle to its left and a ring",
        "three stars, two red and two blue",
        "three stars, two red and one red",
        "a star: the circle is red",
        "a star: the star is red and blue",
        "a star: the stars are red",
        "there are a star",
        "a star on a dark ground on a white ground",
        "on a dark ground, a star; the ground is dark",
        "a star at the top at the left",
        "a photo of a star",
    ],
)
def test_other_texts_are_not_read(text):
    assert read_facts(text) is None


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("a star and a circle", True),
        ("a red star above a blue circle", True),
        ("a disc with a star to its left on a checkered dark ground", True),
        ("a star", False),
        ("a star, a circle and a ring", False),
        ("a red star below a blue circle", False),
        ("a star and a circle on a plain dark ground", False),
    ],
)
def test_a_caption_is_right_if_it_names_all_things_and_nothing_false(text, right):
    assert caption_is_right(text, SCENE) == right


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("two red stars and a blue star", True),
        ("three stars, two red and one blue", True),
        ("two red stars and two blue stars", False),
        ("a star at the top left, a star at the top and a star at the bottom right", True),
        ("two stars at the top left and a star at the bottom right", False),
    ],
)
def test_several_things_of_a_kind_are_counted(text, right):
    assert caption_is_right(text, STARS) == right
