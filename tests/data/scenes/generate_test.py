"""Scenes and their texts: pure functions of seed, split and number, with nothing held out in training."""

from collections import Counter
from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from uno_jax.data.scenes.description import directions_of
from uno_jax.data.scenes.facts import Number, Relation, area_of, holds
from uno_jax.data.scenes.generate import CATEGORIES, NOVEL_CATEGORIES, SPLITS, make_example
from uno_jax.data.scenes.held_out import COUNTS, HELD_OUT, PAIRS, RELATIONS, held_out_in, held_out_named
from uno_jax.data.scenes.places import CLEARANCE, GAP, LATTICE
from uno_jax.data.scenes.scene import COLOURS, SHAPES, SIZES

EXAMPLES = st.builds(make_example, st.integers(0, 99), st.sampled_from(SPLITS), st.integers(0, 10**6))
ORDINARY = st.builds(make_example, st.integers(0, 99), st.sampled_from(SPLITS[:3]), st.integers(0, 10**6))


@given(EXAMPLES)
def test_an_example_depends_on_nothing_but_seed_split_and_number(example):
    assert make_example(example.seed, example.split, example.number) == example


def test_seed_split_and_number_all_change_the_scene():
    scenes = [make_example(*key).scene for key in ((0, "train", 0), (1, "train", 0), (0, "test", 0), (0, "train", 6))]
    assert len(set(scenes)) == 4


@given(EXAMPLES)
def test_the_facts_of_the_prompt_hold_and_count_every_thing(example):
    assert all(holds(fact, example.scene.things) for fact in example.facts)
    assert example.total == sum(fact.count for fact in example.facts if isinstance(fact, Number))


@given(EXAMPLES)
def test_things_keep_apart_from_each_other_and_from_the_border(example):
    for thing in example.scene.things:
        edge = SIZES[thing.size] / 2 + GAP
        assert all(edge <= part <= 1 - edge for part in thing.centre)
    for a, b in combinations(example.scene.things, 2):
        apart = (SIZES[a.size] + SIZES[b.size]) / 2 + GAP
        assert max(abs(a.centre.x - b.centre.x), abs(a.centre.y - b.centre.y)) >= apart


@given(EXAMPLES)
def test_things_lie_clearly_within_one_area(example):
    for part in (part for thing in example.scene.things for part in thing.centre):
        assert min(abs(part - 1 / 3), abs(part - 2 / 3)) >= CLEARANCE - 1e-9


@given(EXAMPLES)
def test_things_lie_on_the_lattice(example):
    assert all((part * LATTICE).is_integer() for thing in example.scene.things for part in thing.centre)


@given(EXAMPLES)
def test_related_things_lie_clearly_in_their_direction(example):
    for fact in example.facts:
        if isinstance(fact, Relation):
            assert fact.direction in directions_of(*example.scene.things)


def test_the_categories_have_equal_parts():
    counts = Counter(make_example(0, "test", number).category for number in range(60))
    assert counts == dict.fromkeys(CATEGORIES, 10)


def test_novel_prompts_have_the_categories_that_can_name_a_combination():
    counts = Counter(make_example(0, "novel", number).category for number in range(40))
    assert counts == dict.fromkeys(NOVEL_CATEGORIES, 10)


def test_each_number_of_things_is_asked_for():
    prompts = [make_example(0, "train", number) for number in range(2, 600, 6)]
    assert {example.total for example in prompts} == {2, 3, 4, 5, 6}


def test_all_areas_are_used():
    examples = [make_example(0, "train", number) for number in range(100)]
    assert len({area_of(thing) for example in examples for thing in example.scene.things}) == 9


# Held-out combinations


@given(ORDINARY)
def test_ordinary_scenes_have_no_held_out_combination(example):
    assert not held_out_in(example.scene)


@given(st.integers(0, 10**6))
def test_every_novel_prompt_names_a_held_out_combination_that_its_scene_has(number):
    example = make_example(0, "novel", number)
    assert held_out_in(example.scene, example.facts) == held_out_named(example.facts) != ()


def test_every_colour_and_shape_is_held_out_once_and_so_common_elsewhere():
    assert {fact.kind.colour for fact in PAIRS} == set(COLOURS)
    assert {fact.kind.shape for fact in PAIRS} == set(SHAPES)
    assert len(PAIRS) == 8


def test_held_out_combinations_differ():
    assert len(set(HELD_OUT)) == len(HELD_OUT) == 8 + 5 + 8
    assert len({fact.kind.shape for fact in COUNTS}) == 5
    assert len({frozenset((fact.first.shape, fact.second.shape)) for fact in RELATIONS}) == 8


def test_each_held_out_combination_is_tested():
    named = {fact for number in range(400) for fact in held_out_named(make_example(0, "novel", number).facts)}
    assert named == set(HELD_OUT)
