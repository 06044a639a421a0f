"""Paired differences, their intervals, and what a difference needs to be resolved."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from uno_jax.study.statistics import (
    Spread,
    bootstrap,
    pair_interval,
    pairs_needed,
    smallest_difference,
    spread,
    standard_error,
    student_quantile,
)

RESULTS = arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(1, 12)), elements=st.sampled_from([-1.0, 0, 1]))


@given(RESULTS)
def test_the_interval_of_prompts_contains_the_mean_and_stays_within_the_results(results):
    estimate = bootstrap(results, resamples=200)
    assert estimate.mean == pytest.approx(results.mean())
    assert results.min() <= estimate.low <= estimate.high <= results.max()


@given(RESULTS)
def test_the_order_of_prompts_changes_the_mean_of_no_pair(results):
    turned = bootstrap(results[:, ::-1], list(range(len(results))), resamples=50)
    assert turned.mean == pytest.approx(bootstrap(results, list(range(len(results))), resamples=50).mean)


@given(RESULTS, st.integers(0, 5))
def test_equal_seeds_give_equal_intervals(results, seed):
    assert bootstrap(results, resamples=50, seed=seed) == bootstrap(results, resamples=50, seed=seed)


def test_results_that_are_all_equal_have_no_interval():
    assert bootstrap(np.full((2, 3), 0.5), ["a", "b"]) == (0.5, 0.5, 0.5)


def test_the_interval_over_prompts_is_that_of_a_binomial():
    results = np.array([[1.0] * 60 + [0.0] * 140])
    estimate = bootstrap(results, resamples=20000)
    half = 1.96 * math.sqrt(0.3 * 0.7 / 200)
    assert (estimate.low, estimate.high) == pytest.approx((0.3 - half, 0.3 + half), abs=0.006)


def test_pairs_that_differ_widen_the_interval_and_prompts_alone_do_not_show_it():
    results = np.repeat(
        [[0.2], [0.4], [0.6], [0.8]], 50, axis=1
    )  # every prompt alike, so all variation is between pairs
    over_prompts, over_pairs = bootstrap(results), bootstrap(results, ["a", "a", "b", "b"])
    assert over_prompts.low == pytest.approx(over_prompts.high)
    assert over_pairs.low < 0.35 < 0.65 < over_pairs.high


def test_a_base_is_resampled_with_its_pairs():
    results = np.array([[0.0], [0.0], [1.0], [1.0]])
    estimate = bootstrap(results, ["a", "a", "b", "b"], resamples=4000)
    assert (estimate.low, estimate.high) == (0.0, 1.0)  # each base alone has a probability of a quarter


def test_bases_of_another_number_are_refused():
    with pytest.raises(ValueError, match="2 bases are given for 3 pairs"):
        bootstrap(np.zeros((3, 4)), ["a", "b"])


def test_no_results_are_refused():
    with pytest.raises(ValueError, match="0 pairs, 4 prompts"):
        bootstrap(np.zeros((0, 4)))


def test_the_interval_of_pairs_is_students():
    results = np.array([[0.0, 0.2], [0.2, 0.4], [0.4, 0.6]])  # means 0.1, 0.3, 0.5: deviation 0.2
    estimate = pair_interval(results)
    half = 4.302653 * 0.2 / math.sqrt(3)  # the table's t of 2 degrees of freedom
    assert estimate == pytest.approx((0.3, 0.3 - half, 0.3 + half))


def test_one_pair_resolves_nothing():
    assert not pair_interval(np.ones((1, 5))).resolved


@pytest.mark.parametrize(
    ("probability", "freedom", "quantile"),
    [(0.975, 1, 12.7062), (0.975, 2, 4.30265), (0.975, 5, 2.57058), (0.95, 10, 1.81246), (0.995, 29, 2.75639)],
)
def test_quantiles_are_those_of_the_tables(probability, freedom, quantile):
    assert student_quantile(probability, freedom) == pytest.approx(quantile, rel=1e-5)


def test_the_spread_of_made_up_differences_is_found_again():
    random = np.random.default_rng(0)
    true = Spread(runs=0.02, prompts=0.2, draws=0.4)
    pairs, prompts = 200, 2000
    differences = (
        random.normal(0, true.runs, (pairs, 1))
        + random.normal(0, true.prompts, (1, prompts))
        + random.normal(0, true.draws, (pairs, prompts))
    )
    assert spread(differences) == pytest.approx(true, rel=0.1)


def test_the_standard_error_of_a_made_up_study_is_the_deviation_of_its_means():
    random = np.random.default_rng(1)
    true, pairs, prompts = Spread(0.03, 0.3, 0.5), 4, 100
    means = [
        (
            random.normal(0, true.runs, (pairs, 1))
            + random.normal(0, true.prompts, (1, prompts))
            + random.normal(0, true.draws, (pairs, prompts))
        ).mean()
        for _ in range(2000)
    ]
    assert np.std(means) == pytest.approx(standard_error(true, pairs, prompts), rel=0.05)


def test_the_smallest_difference_is_that_of_the_formula():
    only_runs = Spread(runs=0.02, prompts=0.0, draws=0.0)
    # six pairs: t of 5 degrees of freedom at 0.975, plus the normal quantile of 80%, times 0.02 / sqrt(6)
    expected = (2.570582 + 0.841621) * 0.02 / math.sqrt(6)
    assert smallest_difference(only_runs, 6, 3000) == pytest.approx(expected, rel=1e-5)


@given(st.integers(2, 20), st.integers(10, 5000))
def test_more_pairs_and_more_prompts_resolve_smaller_differences(pairs, prompts):
    some = Spread(0.02, 0.2, 0.4)
    now = smallest_difference(some, pairs, prompts)
    assert smallest_difference(some, pairs + 1, prompts) < now
    assert smallest_difference(some, pairs, prompts + 10) < now


def test_the_pairs_needed_resolve_the_difference_and_one_less_does_not():
    some = Spread(0.02, 0.1, 0.4)
    need = pairs_needed(some, 0.03, 3000)
    assert need is not None
    assert smallest_difference(some, need.pairs, 3000) <= 0.03 < smallest_difference(some, need.pairs - 1, 3000)


def test_prompts_that_are_too_few_cannot_be_made_up_for_by_runs():
    assert pairs_needed(Spread(0.0, 0.5, 0.0), 0.03, 100) is None
