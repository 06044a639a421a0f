"""The steps from noise to picture: at which times, what is computed at each, and how the velocities are summed.

All of it follows from the settings alone and is worked out on the host, in numpy.
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

# What a step computes: which branches, and whether they run through the layers or are extrapolated.
GUIDED, CONDITIONAL, GUIDED_EXTRAPOLATED, CONDITIONAL_EXTRAPOLATED = range(4)

Number = float | np.floating


@dataclass(frozen=True)
class FlowConfig:
    """How a picture is sampled. The defaults are the public implementation's."""

    timesteps: int = 50
    """Times of the grid, both ends included: one step fewer (convention of the public sampler)."""
    time_shift: float = 3.0
    """t = shift * u / (1 + (shift - 1) * u) for u from 1 to 0 in equal steps."""
    guidance: GuidanceConfig = field(default_factory=GuidanceConfig)
    solver_order: int = 1
    """1: Euler. 2: Adams-Bashforth, which goes on in a line through the velocities of this step and the one before, at
    no further cost."""
    refresh_every: int = 1
    """Only every so many steps run through the layers. In between, what the layers add to the features of the latents
    is extrapolated in time from the last such steps (as in TaylorSeer, whose forecasts of all single layers sum up to
    the same). 1: every step."""
    feature_order: int = 1
    """Degree of that extrapolation: 0 reuses, 1 goes on in a line, 2 in a parabola."""

    def __post_init__(self) -> None:
        for name, least, most in (
            ("timesteps", 2, None),
            ("solver_order", 1, 2),
            ("refresh_every", 1, None),
            ("feature_order", 0, 2),
        ):
            value = getattr(self, name)
            if value < least or (most is not None and value > most):
                raise ConfigError(f"{name} is {value}: expected {least} {f'to {most}' if most else 'or more'}")
        if not 0 < self.time_shift < math.inf:
            raise ConfigError(f"time_shift is {self.time_shift}: expected a positive, finite number")

    @property
    def guided_by_text(self) -> bool:
        """Whether guidance acts at any step."""
        return bool(self.guidance.acts(time_grid(self.timesteps, self.time_shift)[:-1]).any())

    @property
    def guided_by_images(self) -> bool:
        """Whether guidance by images acts at any step."""
        return self.guided_by_text and self.guidance.image_scale > 1


class Schedule(NamedTuple):
    """What a config comes to, step by step; arrays, so that other numbers need no other program."""

    time: Float[np.ndarray, " steps"]
    """Where each step begins."""
    action: Int[np.ndarray, " steps"]
    """GUIDED, CONDITIONAL, GUIDED_EXTRAPOLATED or CONDITIONAL_EXTRAPOLATED."""
    velocity_weights: Float[np.ndarray, "steps solver_order"]
    """A step adds these times the velocities: its own first, then those of the steps before."""
    feature_weights: Float[np.ndarray, "steps points"]
    """An extrapolated step's features are these times the last computed ones, newest first. No points where every
    step is computed."""

    @property
    def kinds(self) -> tuple[int, ...]:
        """The actions that occur."""
        return tuple(int(kind) for kind in np.unique(self.action))


def time_grid(timesteps: int, shift: float) -> Float[np.ndarray, " timesteps"]:
    """The times that a sample passes through, from 1 to 0, float32."""
    grid: np.ndarray = shift_time(np.linspace(1, 0, timesteps, dtype=np.float32), shift)
    return grid


def make_schedule(config: FlowConfig, *, guided: bool = True) -> Schedule:
    """The steps of a config; without guidance throughout where there is nothing to be guided by.

    Where guidance starts or ends the velocity jumps, so the solver and the extrapolation both start anew there.
    """
    grid = time_grid(config.timesteps, config.time_shift)
    acts = config.guidance.acts(grid[:-1]) & guided
    steps, points = len(acts), config.feature_order + 1 if config.refresh_every > 1 else 0
    velocity_weights = np.zeros((steps, config.solver_order), np.float32)
    feature_weights = np.zeros((steps, points), np.float32)
    action = np.where(acts, GUIDED, CONDITIONAL)
    seen: list[int] = []  # steps of this stretch, newest first
    computed: list[int] = []  # those that ran through the layers
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
    """Weights of values at the nodes whose sum is their interpolating polynomial at another place; float64."""
    return np.array([np.polyval(basis, at) for basis in _lagrange_polynomials(nodes)])


def integral_weights(nodes: Float[np.ndarray, " nodes"], start: Number, stop: Number) -> Float[np.ndarray, " nodes"]:
    """Weights whose sum is the integral of the interpolating polynomial from `start` to `stop`; float64."""
    integrals = (np.polyint(basis) for basis in _lagrange_polynomials(nodes))
    return np.array([np.polyval(integral, stop) - np.polyval(integral, start) for integral in integrals])


def _lagrange_polynomials(nodes: np.ndarray) -> list[np.ndarray]:
    """Coefficients of the polynomials that are 1 at one node and 0 at the others."""
    nodes = nodes.astype(np.float64)
    polynomials = []
    for i, node in enumerate(nodes):
        others = np.delete(nodes, i)
        polynomials.append(np.atleast_1d(np.poly(others)) / np.prod(node - others))
    return polynomials


def forward_passes(schedule: Schedule, branches: int) -> int:
    """How often a noised block runs through all layers for one picture, of a guidance with so many branches."""
    return int(np.sum(schedule.action == GUIDED) * branches + np.sum(schedule.action == CONDITIONAL))
