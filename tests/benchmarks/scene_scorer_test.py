"""The pictures by which `benchmarks/scene_scorer.py` measures the scorer."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.scene_scorer import DISTORTIONS, cases, changed
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
