"""Principal components of states, and their colours on a map of the picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

SHOWN = 3
"""Number of components on a map: red, green, blue."""
_WIDTH = 2.5  # standard deviations from the middle of the colour range to its ends


class Components(NamedTuple):
    """The first principal components of states."""

    mean: Float[np.ndarray, " features"]
    directions: Float[np.ndarray, "features components"]
    """Orthonormal."""
    deviations: Float[np.ndarray, " components"]
    """Standard deviation of the states along each direction."""
    explained: Float[np.ndarray, " components"]
    """Share of the variance along each direction."""
    dimension: float
    """Participation ratio of the variances, (sum v) ** 2 / sum v ** 2: the number of directions if all were equal."""

    def scores(self, states: Float[np.ndarray, "*tokens features"]) -> Float[np.ndarray, "*tokens components"]:
        """Coordinates of states along the components, in standard deviations."""
        scores: np.ndarray = (states - self.mean) @ self.directions / np.maximum(self.deviations, 1e-12)
        return scores


def principal_components(states: Float[np.ndarray, "tokens features"]) -> Components:
    """Computes the principal components of states."""
    states = states.astype(np.float64)
    mean = states.mean(axis=0)
    variances, directions = np.linalg.eigh(np.cov(states - mean, rowvar=False, bias=True))
    variances, directions = np.maximum(variances[::-1], 0), directions[:, ::-1]
    total = max(float(variances.sum()), 1e-30)
    return Components(
        mean=mean,
        directions=directions[:, :SHOWN],
        deviations=np.sqrt(variances[:SHOWN]),
        explained=variances[:SHOWN] / total,
        dimension=total**2 / max(float(np.square(variances).sum()), 1e-60),
    )


def aligning_rotation(
    scores: Float[np.ndarray, "tokens components"], references: Sequence[Float[np.ndarray, "tokens components"]]
) -> Float[np.ndarray, "components components"]:
    """Returns the orthogonal matrix that brings scores closest to the references; the identity without references.

    Order, signs and directions of components with similar variances are arbitrary. So colours of two maps can only be
    compared after this rotation within the space of the shown components.
    """
    if not references:
        return np.eye(scores.shape[1])
    left, _, right = np.linalg.svd(scores.T @ sum(references))
    rotation: np.ndarray = left @ right
    return rotation


def colours(scores: Float[np.ndarray, "*tokens 3"]) -> UInt8[np.ndarray, "*tokens 3"]:
    """Maps scores to colours; a score of 0 is the middle grey."""
    return (np.clip(0.5 + scores / (2 * _WIDTH), 0, 1) * 255).round().astype(np.uint8)
