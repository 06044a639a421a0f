"""Config of the training objective: loss weights, the visual loss, and the distribution of t."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

VisualLoss = Literal["cosine", "mse", "smooth_l1"]


@dataclass(frozen=True)
class BalanceConfig:
    """Loss weights from measured gradient norms.

    A supervision loss is scaled so that its gradient norm with respect to the generation expert is this fraction of
    the norm of the flow loss. 0 keeps the fixed weight.
    """

    caption: float = 0.0
    visual: float = 0.0
    align: float = 0.0
    every: int = 0
    """Steps between measurements; 0: none. A measurement needs memory for one gradient of the generation
    expert per loss."""
    decay: float = 0.5
    """Decay of the running estimate: weight of the old value in the update by a new measurement."""


@dataclass(frozen=True)
class ObjectiveConfig:
    """The total is the sum of all losses, each times its weight.

    Each loss is a weighted sum over its tokens in the global batch, divided by their number
    (docs/method.md, "The objective").
    """

    flow_weight: float = 1.0
    caption_weight: float = 0.25
    visual_weight: float = 0.5
    answer_weight: float = 0.0
    """With 0, the vocabulary head does not run on context text."""
    align_weight: float = 0.0
    """Needs `model.align_layer`. With 0, neither the head nor the vision encoder runs for this loss."""
    anchor_weight: float = 0.0
    """With a weight above 0, the state and the checkpoints keep a copy of the trainable parameters at the start, in
    `frozen_dtype`, and a step runs a second forward pass. A run cannot begin with it when it resumes."""
    flow_time_power: float = 0.0
    """Power of the token weight (1 - t) ** power; 0: constant. The denominator is the token count."""
    caption_time_power: float = 0.0
    visual_time_power: float = 0.0
    align_time_power: float = 0.0
    visual_loss: VisualLoss = "cosine"
    align_loss: VisualLoss = "cosine"
    time_shift: float = 1.0
    """Shift of the times: t = shift * u / (1 + (shift - 1) * u), u = sigmoid(normal)."""
    balance: BalanceConfig = field(default_factory=BalanceConfig)
