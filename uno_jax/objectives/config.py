"""What the training objective is made of: weights, the shape of the visual loss, and the distribution of t."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

VisualLoss = Literal["cosine", "mse", "smooth_l1"]


@dataclass(frozen=True)
class BalanceConfig:
    """Weights by measured gradient norm: a supervision loss is scaled so that its gradient norm into the generation
    expert is this fraction of the flow loss's. 0 keeps the fixed weight."""

    caption: float = 0.0
    visual: float = 0.0
    every: int = 0
    """Steps between measurements; 0 = none. They hold three gradients of the generation expert at a time."""
    decay: float = 0.5
    """Of the running estimate: the share of the old value that a new measurement keeps."""


@dataclass(frozen=True)
class ObjectiveConfig:
    """total = flow_weight * flow + caption_weight * caption + visual_weight * visual + answer_weight * answer.

    Each loss is a weighted sum over its tokens in the whole global batch, divided by their number (design section 2).
    """

    flow_weight: float = 1.0
    caption_weight: float = 0.25
    visual_weight: float = 0.5
    answer_weight: float = 0.0
    """0: the vocabulary head does not run on context text."""
    flow_time_power: float = 0.0
    """A loss token at time t counts (1 - t) ** power; 0 = constant. The denominator is the number of tokens still."""
    caption_time_power: float = 0.0
    visual_time_power: float = 0.0
    visual_loss: VisualLoss = "cosine"
    time_shift: float = 1.0
    """t = shift * u / (1 + (shift - 1) * u), u = sigmoid(normal)."""
    balance: BalanceConfig = field(default_factory=BalanceConfig)
