"""Linear probes: they find what is there, and nothing where nothing is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uno_jax.inside.probes import FOLDS, area_under_curve, folds, probe
from uno_jax.inside.questions import Question

RECORDS, FEATURES = 200, 12


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def question(*labels: np.ndarray, exclusive: bool = False) -> Question:
    return Question("made up", tuple(f"answer {i}" for i in range(len(labels))), np.stack(labels, axis=1), exclusive)


def random_labels(seed: int, share: float = 0.3) -> np.ndarray:
    return np.random.default_rng(seed).random(RECORDS) < share


def test_a_planted_direction_is_found():
    labels = random_labels(1)
    states = noise(2, RECORDS, 1, FEATURES) + 4 * labels[:, None, None] * (noise(3, FEATURES) / FEATURES**0.5)
    [score] = probe(states, [question(labels)])
    assert score.auc > 0.95
    assert score.by_answer == {"answer 0": pytest.approx(score.auc)}
    assert 0 < score.error < 0.05


def test_random_labels_are_at_chance():
    [score] = probe(noise(4, RECORDS, 1, FEATURES), [question(*map(random_labels, range(10, 20)))])
    assert abs(score.auc - 0.5) < 0.05


def test_with_more_features_than_records_random_labels_are_still_at_chance():
    """Such a probe fits any labels of the records that it is fitted on."""
    [score] = probe(noise(5, RECORDS, 1, 2 * RECORDS), [question(*map(random_labels, range(20, 28)))])
    assert abs(score.auc - 0.5) < 0.05


def test_one_token_is_enough():
    labels, tokens = random_labels(6), 8
    states = noise(7, RECORDS, tokens, FEATURES)
    states[np.arange(RECORDS), np.arange(RECORDS) % tokens, 0] += 8 * labels
    [of_tokens] = probe(states, [question(labels)])
    assert of_tokens.auc > 0.95


def test_scales_and_offsets_of_features_do_not_matter():
    labels = random_labels(8)
    states = noise(9, RECORDS, 1, FEATURES)
    states[:, 0, 3] += 2 * labels
    [plain] = probe(states, [question(labels)])
    [scaled] = probe(states * (10.0 ** np.arange(-3, FEATURES - 3)) + 5, [question(labels)])
    assert scaled.auc == pytest.approx(plain.auc, abs=1e-6)


def test_constant_features_do_no_harm():
    labels = random_labels(8)
    states = noise(9, RECORDS, 1, FEATURES)
    with_constant = np.concatenate([states, np.ones((RECORDS, 1, 1), np.float32)], axis=2)
    [with_one], [without] = (probe(x, [question(labels)]) for x in (with_constant, states))
    assert with_one.auc == pytest.approx(without.auc)


def test_one_answer_per_record_has_an_accuracy_and_the_base_rate_beside_it():
    kind = np.random.default_rng(10).choice(3, RECORDS, p=(0.6, 0.2, 0.2))
    labels = [kind == i for i in range(3)]
    states = noise(11, RECORDS, 1, FEATURES)
    states[np.arange(RECORDS), 0, kind] += 6
    [found] = probe(states, [question(*labels, exclusive=True)])
    assert found.accuracy > 0.95
    assert found.base_rate == pytest.approx(labels[0].mean())
    [several] = probe(states, [question(*labels)])
    assert several.accuracy is several.base_rate is None


def test_the_accuracy_is_that_of_records_with_one_of_the_answers():
    kind = np.arange(RECORDS) % 3  # kind 2 is not among the answers
    states = noise(15, RECORDS, 1, FEATURES)
    states[np.arange(RECORDS), 0, kind] += 9
    [found] = probe(states, [question(kind == 0, kind == 1, exclusive=True)])
    assert found.accuracy > 0.95
    assert found.base_rate == pytest.approx(0.5, abs=0.01)


def test_questions_do_not_depend_on_each_other():
    states, questions = noise(12, RECORDS, 1, FEATURES), [question(random_labels(i)) for i in (13, 14)]
    assert probe(states, questions) == [probe(states, [each])[0] for each in questions]


@given(
    values=st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=12),
)
def test_the_area_is_the_share_of_ordered_pairs_with_ties_counted_half(values):
    scores, positive = (np.array(each) for each in zip(*values, strict=True))
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[positive] for b in scores[~positive]]
    area = area_under_curve(scores.astype(float), positive)
    assert area == pytest.approx(np.mean(pairs)) if pairs else np.isnan(area)


@given(records=st.integers(FOLDS, 300))
def test_every_record_is_in_one_part_and_parts_are_equally_large(records):
    sizes = np.bincount(folds(records), minlength=FOLDS)
    assert sizes.sum() == records
    assert sizes.max() - sizes.min() <= 1
