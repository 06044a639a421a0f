"""The pictures by which `benchmarks/scene_scorer.py` measures the scorer."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import scene_scorer
from benchmarks.scene_scorer import DISTORTIONS, EDITED, cases, changed, edit_agreements
from uno_jax.data.scenes.edits import edits_of
from uno_jax.data.scenes.generate import make_example


@pytest.mark.parametrize("name", DISTORTIONS)
def test_a_distortion_by_nothing_leaves_a_picture_as_it_is_and_by_something_does_not(name):
    (case, _), distort = cases([0], side=64), DISTORTIONS[name]
    assert np.array_equal(distort(case.pixels, 0, np.random.default_rng(0)), case.pixels)
    assert not np.array_equal(distort(case.pixels, distort.amounts[1], np.random.default_rng(0)), case.pixels)


def test_a_scene_follows_its_prompt_and_most_changed_scenes_do_not():
    true = [case.true for case in cases(range(60), side=8)]
    assert all(true[::2])
    assert sum(true[1::2]) < 20


def test_a_change_is_of_the_things_only():
    scene = make_example(0, "test", 1).scene
    for seed in range(20):
        other = changed(scene, np.random.default_rng(seed))
        assert other.things != scene.things
        assert other.ground == scene.ground


def test_an_exchange_of_two_equal_things_leaves_an_edit_right(monkeypatch):
    monkeypatch.setattr(scene_scorer, "changed", lambda scene, draws: scene)
    assert list(edit_agreements(0, 64, "test")) == [(True, True)] * 6


def test_one_more_change_makes_an_edit_wrong():
    assert [true for true, _ in edit_agreements(0, 64, "test")] == [True, False] * 3


def test_the_edits_on_the_sheet_are_of_all_kinds():
    edits = [edit for number in EDITED for edit in edits_of(make_example(scene_scorer.SEED, "test", number))]
    assert len({edit.kind for edit in edits}) == 6
