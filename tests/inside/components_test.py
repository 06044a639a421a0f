"""Principal components and their colours."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from uno_jax.inside.components import aligning_rotation, colours, principal_components

FEATURES = 8


def planted(seed: int, deviations: tuple[float, ...], tokens: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Returns states with the given deviations along orthonormal directions, and these directions."""
    rng = np.random.default_rng(seed)
    directions = np.linalg.qr(rng.standard_normal((FEATURES, FEATURES)))[0][:, : len(deviations)]
    states = rng.standard_normal((tokens, len(deviations))) * deviations @ directions.T + 3.0
    return states, directions


def test_components_are_the_directions_of_largest_variance():
    states, directions = planted(0, (4.0, 2.0, 1.0, 0.5))
    found = principal_components(states)
    np.testing.assert_allclose(np.abs(np.sum(found.directions * directions[:, :3], axis=0)), 1, atol=0.01)
    np.testing.assert_allclose(found.deviations, (4, 2, 1), rtol=0.05)
    np.testing.assert_allclose(found.explained, np.array([16, 4, 1]) / 21.25, atol=0.02)


def test_scores_have_mean_zero_and_deviation_one():
    states, _ = planted(1, (4.0, 2.0, 1.0, 0.5))
    scores = principal_components(states).scores(states)
    np.testing.assert_allclose(scores.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(scores.std(axis=0), 1, atol=1e-6)


def test_the_dimension_is_the_number_of_equally_varied_directions():
    for count in (1, 3, 6):
        states, _ = planted(2, (1.0,) * count, tokens=50_000)
        np.testing.assert_allclose(principal_components(states).dimension, count, rtol=0.01)


@given(seed=st.integers(0, 1000))
def test_alignment_undoes_any_rotation_and_reflection(seed):
    rng = np.random.default_rng(seed)
    scores = rng.standard_normal((50, 3))
    turned = scores @ np.linalg.qr(rng.standard_normal((3, 3)))[0]
    np.testing.assert_allclose(turned @ aligning_rotation(turned, [scores]), scores, atol=1e-9)


def test_without_a_reference_nothing_is_rotated():
    np.testing.assert_array_equal(aligning_rotation(np.ones((4, 3)), []), np.eye(3))


def test_alignment_changes_no_distance_between_tokens():
    rng = np.random.default_rng(0)
    scores, reference = rng.standard_normal((2, 20, 3))
    rotated = scores @ aligning_rotation(scores, [reference, reference[::-1]])
    np.testing.assert_allclose(rotated @ rotated.T, scores @ scores.T, atol=1e-9)


def test_the_mean_is_grey_and_components_are_red_green_and_blue():
    assert colours(np.zeros((1, 3))).tolist() == [[128, 128, 128]]
    assert colours(np.array([[9.0, 0, -9.0]])).tolist() == [[255, 128, 0]]


def test_states_without_any_variance_have_a_map():
    found = principal_components(np.ones((10, FEATURES)))
    assert np.isfinite(found.scores(np.ones((10, FEATURES)))).all()
    assert np.isfinite(found.dimension)
