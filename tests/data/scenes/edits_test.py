"""Edits of scenes: rounds of instructions whose results are exact."""

from collections import Counter
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uno_jax.data.scenes.edits import ROUNDS, edit_of, edits_of
from uno_jax.data.scenes.facts import area_of, holds
from uno_jax.data.scenes.generate import SPLITS, make_example
from uno_jax.data.scenes.held_out import held_out_in
from uno_jax.data.scenes.places import GAP, LATTICE
from uno_jax.data.scenes.scene import LARGEST_COUNT, SIZES
from uno_jax.data.scenes.text import caption_is_right

EXAMPLES = st.builds(make_example, st.integers(0, 99), st.sampled_from(SPLITS), st.integers(0, 10**6))
MANY = [edit for number in range(150) for edit in edits_of(make_example(0, "train", number))]


def of_kind(kind):
    return [edit for edit in MANY if edit.kind == kind]


def changed(edit):
    """The thing before and after an edit that exchanges one thing."""
    (before,), (after,) = (set(edit.source.things) - set(edit.kept), set(edit.target.things) - set(edit.kept))
    return before, after


@given(EXAMPLES)
def test_every_round_starts_from_the_result_of_the_one_before(example):
    edits = edits_of(example)
    assert len(edits) == ROUNDS
    assert [edit.source for edit in edits] == [example.scene, *(edit.target for edit in edits[:-1])]


@given(EXAMPLES)
def test_the_facts_hold_for_the_result_and_not_for_the_source(example):
    for edit in edits_of(example):
        assert all(holds(fact, edit.target.things) for fact in edit.facts)
        same_number = edit.total == len(edit.source.things)
        assert not (same_number and all(holds(fact, edit.source.things) for fact in edit.facts))


@given(EXAMPLES)
def test_an_edit_changes_one_thing_and_keeps_all_others(example):
    for edit in edits_of(example):
        before, after = set(edit.source.things), set(edit.target.things)
        assert set(edit.kept) == before & after
        assert len(before - after) <= 1
        assert len(after - before) <= 1


@given(EXAMPLES)
def test_results_are_scenes_like_those_of_examples(example):
    for edit in edits_of(example):
        things = edit.target.things
        assert 1 <= edit.total <= LARGEST_COUNT
        assert len(things) <= 3 or all(thing.size == "small" for thing in things)
        for a, b in combinations(things, 2):
            apart = (SIZES[a.size] + SIZES[b.size]) / 2 + GAP
            assert max(abs(a.centre.x - b.centre.x), abs(a.centre.y - b.centre.y)) >= apart
        assert all(SIZES[t.size] / 2 + GAP <= part <= 1 - SIZES[t.size] / 2 - GAP for t in things for part in t.centre)
        assert all((part * LATTICE).is_integer() for thing in things for part in thing.centre)


@given(st.builds(make_example, st.just(0), st.sampled_from(SPLITS[:3]), st.integers(0, 10**6)))
def test_no_result_outside_of_novel_has_a_held_out_combination(example):
    assert not any(held_out_in(edit.target) for edit in edits_of(example))


@given(EXAMPLES)
def test_captions_describe_the_result(example):
    for edit in edits_of(example):
        assert len(edit.captions) >= 3
        assert all(caption_is_right(caption, edit.target) for caption in edit.captions)


def test_all_kinds_of_edits_are_common():
    counts = Counter(edit.kind for edit in MANY)
    assert counts.keys() == {"recolour", "move", "add", "remove", "replace", "resize"}
    assert min(counts.values()) > len(MANY) / 15


def test_a_thing_is_recoloured():
    for edit in of_kind("recolour"):
        before, after = changed(edit)
        assert (before.shape, before.size, before.centre) == (after.shape, after.size, after.centre)
        assert edit.instruction.endswith(after.colour)
        assert before.colour != after.colour


def test_a_thing_is_moved_to_another_area():
    for edit in of_kind("move"):
        before, after = changed(edit)
        assert (before.shape, before.colour, before.size) == (after.shape, after.colour, after.size)
        assert edit.instruction.endswith(area_of(after))
        assert area_of(before) != area_of(after)


def test_a_thing_changes_its_size_within_its_area():
    for edit in of_kind("resize"):
        before, after = changed(edit)
        assert (before.shape, before.colour, area_of(before)) == (after.shape, after.colour, area_of(after))
        assert ("larger" in edit.instruction or "bigger" in edit.instruction or "enlarge" in edit.instruction) == (
            after.size == "large"
        )
        assert before.size != after.size


def test_a_thing_is_replaced_by_another_shape_in_its_place():
    for edit in of_kind("replace"):
        before, after = changed(edit)
        assert (before.size, before.centre) == (after.size, after.centre)
        assert after.shape in edit.instruction
        assert before.shape != after.shape
        assert before.colour == after.colour or after.colour in edit.instruction


def test_a_thing_is_added():
    for edit in of_kind("add"):
        assert edit.kept == edit.source.things
        assert edit.target.things[-1].shape in edit.instruction
        assert edit.target.things[-1].colour in edit.instruction


def test_a_thing_is_removed():
    for edit in of_kind("remove"):
        (gone,) = set(edit.source.things) - set(edit.kept)
        assert edit.kept == edit.target.things
        assert gone.shape in edit.instruction


def test_every_kind_of_edit_is_worded_in_several_ways():
    for kind in {edit.kind for edit in MANY}:
        assert len({edit.instruction.split()[0] for edit in of_kind(kind)}) >= 2


def test_the_id_of_a_record_gives_its_edit():
    assert edit_of("scenes/3/test/17/edit-2") == edits_of(make_example(3, "test", 17))[1]


@pytest.mark.parametrize("record_id", ["scenes/3/test/17", "scenes/3/test/17/edit-9", "openmoji/edit/x/edit-1", ""])
def test_other_ids_give_no_edit(record_id):
    with pytest.raises(ValueError, match="is no id"):
        edit_of(record_id)
