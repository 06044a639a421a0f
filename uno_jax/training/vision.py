"""Training of a vision encoder alone, on what lies on each patch of pictures of scenes.

A public vision encoder has seen billions of pictures. That of a small model learns from labels of every patch, which
takes minutes. Without this, a model that learns to see from captions alone names colours after hours, and no shapes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, UInt8

from uno_jax.data.scenes.patches import NUMBERS, PatchLabels
from uno_jax.data.transforms import position_ids
from uno_jax.models.config import VisionConfig
from uno_jax.models.positions import pixels_to_float
from uno_jax.models.vision import VisionEncoder
from uno_jax.training.optimizer import OptimizerConfig, make_optimizer
from uno_jax.training.state import Params

Patches = UInt8[np.ndarray, "pictures patches values"]
Accuracies = dict[str, float]


class PatchReader(nn.Module):
    """A vision encoder with a linear head for each kind of label."""

    config: VisionConfig

    @nn.compact
    def __call__(self, patches: UInt8[Array, "pictures patches values"]) -> dict[str, Array]:
        """Returns logits by kind of label, `[pictures, patches, classes]`, and `centre`, `[pictures, patches, 2]`.

        `patches` are those of square pictures, row by row.
        """
        pictures, count, _ = patches.shape
        side = math.isqrt(count)
        positions = jnp.broadcast_to(position_ids(side, side, self.config.table_side), (pictures, count))
        image = jnp.ones((pictures, count), jnp.int32)
        features = VisionEncoder(self.config, name="vision")(pixels_to_float(patches), positions, image)
        heads = NUMBERS | {"centre": 2}
        return {kind: nn.Dense(outputs, name=kind)(features) for kind, outputs in heads.items()}


def train_vision(
    vision: Params,
    config: VisionConfig,
    optimizer: OptimizerConfig,
    patches: Patches,
    labels: PatchLabels,
    *,
    steps: int,
    batch: int,
    seed: int,
    on_step: Callable[[int], Any] = lambda step: None,
) -> tuple[Params, Params]:
    """Trains the parameters `vision` of an encoder, with cross-entropies and a squared distance of all patches.

    Returns the trained parameters of the encoder, and of the heads, by which `patch_accuracies` measures it.
    """
    reader, rule = PatchReader(config), make_optimizer(optimizer, steps)
    params = {**_heads(reader, seed, patches[:1]), "vision": vision}

    def loss(params: dict[str, Any], patches: Array, labels: PatchLabels) -> Float[Array, ""]:
        said: Any = reader.apply({"params": params}, patches)
        classes = [
            optax.softmax_cross_entropy_with_integer_labels(said[kind], getattr(labels, kind)).mean()
            for kind in NUMBERS
        ]
        distance = jnp.sum((said["centre"] - labels.centre) ** 2, axis=-1)
        return sum(classes, jnp.mean(distance, where=labels.shape > 0))

    @jax.jit
    def step(params: dict[str, Any], state: optax.OptState, *batch: Any) -> tuple[dict[str, Any], optax.OptState]:
        updates, state = rule.update(jax.grad(loss)(params, *batch), state, params)
        updated: dict[str, Any] = optax.apply_updates(params, updates)
        return updated, state

    state, draws = rule.init(params), np.random.default_rng(seed)
    for number in range(1, steps + 1):
        chosen = draws.integers(len(patches), size=batch)
        params, state = step(params, state, patches[chosen], PatchLabels(*(kind[chosen] for kind in labels)))
        on_step(number)
    jax.block_until_ready(params)
    return params["vision"], {name: head for name, head in params.items() if name != "vision"}


def _heads(reader: PatchReader, seed: int, patches: Patches) -> dict[str, Any]:
    """Initialises the parameters of the heads at random."""
    variables: Any = reader.init(jax.random.key(seed), jnp.asarray(patches))
    return {name: head for name, head in variables["params"].items() if name != "vision"}


def patch_accuracies(
    vision: Params, heads: Params, config: VisionConfig, patches: Patches, labels: PatchLabels, batch: int = 100
) -> Accuracies:
    """Returns the share of patches that are labelled right, by kind of label, among those with a thing on them."""
    # Parameters are an argument, because the compiler would take time to fold constants.
    read, variables = jax.jit(PatchReader(config).apply), {"params": {**heads, "vision": vision}}
    right: dict[str, list[Int[np.ndarray, " patches"]]] = {kind: [] for kind in NUMBERS}
    for start in range(0, len(patches), batch):
        said = read(variables, patches[start : start + batch])
        on = labels.shape[start : start + batch] > 0
        for kind in NUMBERS:
            wanted = getattr(labels, kind)[start : start + batch]
            right[kind].append((np.argmax(said[kind], axis=-1) == wanted)[on])
    return {kind: float(np.concatenate(found).mean()) for kind, found in right.items()}
