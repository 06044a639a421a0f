"""The schedule of a sample: the times of its steps, what each step computes, and the weights of the velocities.

It depends on the settings only and is computed on the host, in numpy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from uno_jax.config import ConfigError
from uno_jax.objectives.draws import shift_time
from uno_jax.sampling.guidance import GuidanceConfig

# Kinds of step: all branches or the conditional one, computed by the layers or extrapolated.
GUIDED, CONDITIONAL, GUIDED_EXTRAPOLATED, CONDITIONAL_EXTRAPOLATED = range(4)

Number = float | np.floating


@dataclass(frozen=True)
class FlowConfig:
    """Settings for sampling an image, with the defaults of BAGEL's public implementation."""

    timesteps: int = 50
    """Number of times in the grid, including both ends: one more than steps, as in BAGEL's public implementation."""
    time_shift: float = 3.0
    """Shift of the times: t = shift * u / (1 + (shift - 1) * u) for u from 1 to 0 in equal steps."""
    guidance: GuidanceConfig = field(default_factory=GuidanceConfig)
    solver_order: int = 1
    """1: Euler. 2: Adams-Bashforth, which extrapolates linearly from the last two velocities at no extra cost."""
    refresh_every: int = 1
    """Interval, in steps, between steps that run the layers; 1: every step.

    In between, the layers' updates to the latents' features are extrapolated in time from the last computed steps. This
    follows TaylorSeer, whose forecasts of all individual layers have the same sum.
    """
    feature_order: int = 1
    """Degree of that extrapolation: 0 reuses, 1 is linear, 2 is quadratic."""

    def __post_init__(self) -> None:
        for name, minimum, maximum in (
            ("timesteps", 2, 10_000),
            ("solver_order", 1, 2),
            ("refresh_every", 1, 10_000),
            ("feature_order", 0, 2),
        ):
            value = getattr(self, name)
            if not minimum <= value <= maximum:
                raise ConfigError(f"{name} is {value}: expected {minimum} to {maximum}")
        if not 0 < self.time_shift < math.inf:
            raise ConfigError(f"time_shift is {self.time_shift}: expected a positive, finite number")

    @property
    def guided_by_text(self) -> bool:
        """Whether guidance applies at any step."""
        return bool(self.guidance.acts(time_grid(self.timesteps, self.time_shift)[:-1]).any())

    @property
    def guided_by_images(self) -> bool:
        """Whether guidance by images applies at any step."""
        return self.guided_by_text and self.guidance.image_scale > 1


class Schedule(NamedTuple):
    """Per-step values of a config. They are arrays, so that other numbers do not trigger a compilation."""

    time: Float[np.ndarray, " steps"]
    """Time at the start of each step."""
    action: Int[np.ndarray, " steps"]
    """GUIDED, CONDITIONAL, GUIDED_EXTRAPOLATED or CONDITIONAL_EXTRAPOLATED."""
    velocity_weights: Float[np.ndarray, "steps solver_order"]
    """Weights of the velocities that a step adds: its own first, then those of the previous steps."""
    feature_weights: Float[np.ndarray, "steps points"]
    """Weights of the last computed features, newest first, in an extrapolated step. Empty if all steps are computed."""

    @property
    def kinds(self) -> tuple[int, ...]:
        """The distinct actions."""
        return tuple(int(kind) for kind in np.unique(self.action))


def time_grid(timesteps: int, shift: float) -> Float[np.ndarray, " timesteps"]:
    """Times of a sample from 1 to 0, float32."""
    grid: np.ndarray = shift_time(np.linspace(1, 0, timesteps, dtype=np.float32), shift)
    return grid


def make_schedule(config: FlowConfig, *, guided: bool = True) -> Schedule:
    """Computes the schedule of a config; `guided=False` turns guidance off at all steps.

    The velocity jumps where guidance starts or ends, so the solver and the extrapolation restart there.
    """
    grid = time_grid(config.timesteps, config.time_shift)
    acts = config.guidance.acts(grid[:-1]) & guided
    steps, points = len(acts), config.feature_order + 1 if config.refresh_every > 1 else 0
    velocity_weights = np.zeros((steps, config.solver_order), np.float32)
    feature_weights = np.zeros((steps, points), np.float32)
    action = np.where(acts, GUIDED, CONDITIONAL)
    seen: list[int] = []  # steps since the last restart, newest first
    computed: list[int] = []  # of these, the ones that run the layers
    for i in range(steps):
        if i > 0 and acts[i] != acts[i - 1]:
            seen, computed = [], []
        seen = [i, *seen][: config.solver_order]
        velocity_weights[i, : len(seen)] = integral_weights(grid[seen], grid[i], grid[i + 1])
        if len(computed) >= max(points, 1) and i - computed[0] < config.refresh_every:
            action[i] = GUIDED_EXTRAPOLATED if acts[i] else CONDITIONAL_EXTRAPOLATED
            feature_weights[i] = lagrange_weights(grid[computed[:points]], grid[i])
        else:
            computed.insert(0, i)
    return Schedule(grid[:-1], action.astype(np.int32), velocity_weights, feature_weights)


def lagrange_weights(nodes: Float[np.ndarray, " nodes"], at: Number) -> Float[np.ndarray, " nodes"]:
    """Weights of the values at the nodes that evaluate their interpolating polynomial at `at`; float64."""
    return np.array([np.polyval(basis, at) for basis in _lagrange_polynomials(nodes)])


def integral_weights(nodes: Float[np.ndarray, " nodes"], start: Number, stop: Number) -> Float[np.ndarray, " nodes"]:
    """Weights of the values at the nodes that integrate their interpolating polynomial over an interval; float64."""
    integrals = (np.polyint(basis) for basis in _lagrange_polynomials(nodes))
    return np.array([np.polyval(integral, stop) - np.polyval(integral, start) for integral in integrals])


def _lagrange_polynomials(nodes: np.ndarray) -> list[np.ndarray]:
    """Coefficients of the Lagrange polynomials: 1 at one node and 0 at the others."""
    nodes = nodes.astype(np.float64)
    polynomials = []
    for i, node in enumerate(nodes):
        others = np.delete(nodes, i)
        polynomials.append(np.atleast_1d(np.poly(others)) / np.prod(node - others))
    return polynomials


def forward_passes(schedule: Schedule, branches: int) -> int:
    """Number of forward passes of a noised block through all layers for one image, with `branches` branches."""
    return int(np.sum(schedule.action == GUIDED) * branches + np.sum(schedule.action == CONDITIONAL))
