"""The schedule of a sample: times, kinds of step, and weights of velocities and features."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uno_jax.sampling.guidance import GuidanceConfig
from uno_jax.sampling.schedule import (
    CONDITIONAL,
    CONDITIONAL_EXTRAPOLATED,
    GUIDED,
    GUIDED_EXTRAPOLATED,
    FlowConfig,
    forward_passes,
    lagrange_weights,
    make_schedule,
    time_grid,
)

UNIT = st.floats(0, 1, width=32)
ALWAYS = GuidanceConfig(interval=(0.0, 1.0))
EXTRAPOLATED = (GUIDED_EXTRAPOLATED, CONDITIONAL_EXTRAPOLATED)


def test_the_grid_has_one_time_more_than_steps_and_ends_at_zero():
    np.testing.assert_allclose(time_grid(5, 1.0), [1, 0.75, 0.5, 0.25, 0])
    np.testing.assert_allclose(time_grid(3, 3.0), [1, 0.75, 0], rtol=1e-6)
    assert time_grid(3, 3.0).dtype == np.float32


def integrate(config: FlowConfig, velocity) -> float:
    """Integrates a velocity that depends on time only, from 0 at t = 1."""
    schedule, history, x = make_schedule(config), [], 0.0
    for time, weights in zip(schedule.time, schedule.velocity_weights, strict=True):
        history = [velocity(float(time)), *history]
        x += sum(weight * v for weight, v in zip(weights, history, strict=False))
    return x


@given(timesteps=st.integers(2, 60), shift=st.floats(0.5, 6.0), order=st.integers(1, 2))
def test_a_constant_velocity_is_integrated_exactly(timesteps, shift, order):
    config = FlowConfig(timesteps, shift, ALWAYS, solver_order=order)
    assert integrate(config, lambda t: 2.0) == pytest.approx(-2.0, abs=1e-5)


def test_an_euler_step_uses_the_velocity_at_its_start():
    """The times are 1, 0.75 and 0."""
    assert integrate(FlowConfig(3, 3.0), lambda t: t) == pytest.approx(-0.25 * 1 - 0.75 * 0.75)


@pytest.mark.parametrize("order", [1, 2])
def test_the_error_decreases_with_the_order_of_the_solver(order):
    """From 40 to 80 steps, the error of integrating the velocity exp(t) decreases by a factor of 2 ** order."""
    exact = 1 - np.exp(1.0)
    config = FlowConfig(41, 1.0, ALWAYS, solver_order=order)
    coarse, fine = (
        abs(integrate(dataclasses.replace(config, timesteps=steps + 1), np.exp) - exact) for steps in (40, 80)
    )
    assert coarse / fine == pytest.approx(2**order, rel=0.15)


def test_solver_and_extrapolation_restart_where_guidance_starts_or_ends():
    guidance = GuidanceConfig(interval=(0.3, 0.8))
    schedule = make_schedule(FlowConfig(11, 1.0, guidance, solver_order=2, refresh_every=3))
    assert [bool(weights[1]) for weights in schedule.velocity_weights] == [
        *(False, True),  # 1, 0.9
        *(False, True, True, True, True),  # 0.8 .. 0.4
        *(False, True, True),  # 0.3 ..
    ]
    c, g, ce, ge = CONDITIONAL, GUIDED, CONDITIONAL_EXTRAPOLATED, GUIDED_EXTRAPOLATED
    assert schedule.action.tolist() == [c, c, g, g, ge, ge, g, c, c, ce]


@pytest.mark.parametrize(("every", "order"), [(1, 1), (2, 0), (2, 1), (3, 2), (4, 1)])
def test_the_first_steps_are_computed_as_extrapolation_needs_and_then_one_in_refresh_every(every, order):
    schedule = make_schedule(FlowConfig(25, 3.0, ALWAYS, refresh_every=every, feature_order=order))
    computed = np.flatnonzero(schedule.action == GUIDED).tolist()
    assert computed == [*range(order), *range(order, 24, every)]


@pytest.mark.parametrize("order", [0, 1, 2])
def test_features_are_extrapolated_from_the_last_computed_steps(order):
    """Features that are a polynomial of that degree in time are extrapolated exactly."""
    schedule = make_schedule(FlowConfig(25, 3.0, ALWAYS, refresh_every=3, feature_order=order))
    features, last = (1 - 2 * schedule.time) ** order, []
    extrapolated = 0
    for now, action, weights in zip(features, schedule.action, schedule.feature_weights, strict=True):
        if action in EXTRAPOLATED:
            assert sum(w * f for w, f in zip(weights, last, strict=True)) == pytest.approx(now, abs=1e-5)
            extrapolated += 1
        else:
            last = [now, *last][: order + 1]
    assert extrapolated > 10


def test_no_features_are_stored_if_every_step_is_computed():
    assert make_schedule(FlowConfig()).feature_weights.shape == (49, 0)


def test_interpolation_of_one_node_is_constant():
    assert lagrange_weights(np.array([0.3], np.float32), 0.9).tolist() == [1.0]


def test_an_image_costs_a_pass_for_each_branch_and_step_within_the_interval():
    """With the defaults (50 times, shift 3, interval (0.4, 1]), 41 of the 49 steps are in the interval."""
    schedule = make_schedule(FlowConfig())
    assert [forward_passes(schedule, branches) for branches in (2, 3)] == [41 * 2 + 8, 41 * 3 + 8]
    assert forward_passes(make_schedule(FlowConfig(), guided=False), 1) == 49
    assert forward_passes(make_schedule(FlowConfig(25, 3.0, ALWAYS)), 2) == 48


def test_guidance_needs_a_scale_above_one_and_a_step_that_starts_in_its_interval():
    def guided(**guidance) -> tuple[bool, bool]:
        config = FlowConfig(3, 1.0, GuidanceConfig(**guidance))  # steps start at 1 and at 0.5
        return config.guided_by_text, config.guided_by_images

    assert guided() == (True, True)
    assert guided(image_scale=1.0) == (True, False)
    assert guided(text_scale=1.0) == (False, False)
    assert guided(interval=(0.5, 0.9)) == (False, False)
    assert guided(interval=(0.4, 0.5)) == (True, True)


@given(timesteps=st.integers(2, 60), shift=st.floats(0.5, 6.0), bounds=st.tuples(UNIT, UNIT))
def test_only_steps_that_start_within_the_interval_cost_more_than_one_pass(timesteps, shift, bounds):
    """The interval excludes its lower and includes its upper bound, as in BAGEL's public implementation."""
    low, high = sorted(bounds)
    config = FlowConfig(timesteps, shift, GuidanceConfig(interval=(low, high)))
    times = time_grid(timesteps, shift)[:-1].astype(np.float64)
    within = sum(low < float(t) <= high for t in times)
    assert forward_passes(make_schedule(config), 3) == timesteps - 1 + 2 * within


@pytest.mark.parametrize(
    "settings",
    [
        {"timesteps": 1},
        {"time_shift": 0.0},
        {"time_shift": math.nan},
        {"time_shift": math.inf},
        {"solver_order": 3},
        {"refresh_every": 0},
        {"feature_order": 3},
    ],
)
def test_invalid_settings_raise_an_error_with_their_name(settings):
    with pytest.raises(ValueError, match=f"{next(iter(settings))} is"):
        FlowConfig(**settings)
