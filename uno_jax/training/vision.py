"""Training of a vision encoder alone, on what lies on each patch of pictures of scenes.

A public vision encoder has seen billions of pictures. That of a small model learns from labels of every patch, which
takes minutes. Without this, a model that learns to see from captions alone names colours after hours, and no shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, UInt8

from uno_jax.batch import position_ids
from uno_jax.data.scenes.patches import NUMBERS, PatchLabels
from uno_jax.models.autoencoder import patchify_latents
from uno_jax.models.config import VisionConfig
from uno_jax.models.positions import pixels_to_float
from uno_jax.models.vision import VisionEncoder
from uno_jax.training.optimizer import OptimizerConfig, make_optimizer
from uno_jax.training.state import Params

Pictures = UInt8[np.ndarray, "pictures side side 3"]
Accuracies = dict[str, float]


class PatchLabeller(nn.Module):
    """Linear heads over the features of patches, one for each kind of label."""

    @nn.compact
    def __call__(self, features: Float[Array, "pictures patches features"]) -> dict[str, Array]:
        """Returns logits by kind of label, `[pictures, patches, classes]`, and `centre`, `[pictures, patches, 2]`."""
        return {kind: nn.Dense(outputs, name=kind)(features) for kind, outputs in (NUMBERS | {"centre": 2}).items()}


class PatchReader(nn.Module):
    """A vision encoder with a labeller of its features."""

    config: VisionConfig

    @nn.compact
    def __call__(self, pictures: UInt8[Array, "pictures side side 3"]) -> dict[str, Array]:
        """Returns what `PatchLabeller` does."""
        patches = patchify_latents(pixels_to_float(pictures), self.config.patch_size)
        count, side = patches.shape[:2], pictures.shape[1] // self.config.patch_size
        positions = jnp.broadcast_to(position_ids(side, side, self.config.table_side), count)
        features = VisionEncoder(self.config, name="vision")(patches, positions, jnp.ones(count, jnp.int32))
        said: dict[str, Array] = PatchLabeller(name="heads")(features)
        return said


def labels_loss(said: Mapping[str, Array], labels: PatchLabels) -> Float[Array, ""]:
    """Mean over all patches of the cross-entropies of their labels, and of the squared distance to the centre."""
    classes = [
        optax.softmax_cross_entropy_with_integer_labels(said[kind], getattr(labels, kind)).mean() for kind in NUMBERS
    ]
    distance = jnp.sum((said["centre"] - labels.centre) ** 2, axis=-1)
    return sum(classes, jnp.mean(distance, where=labels.shape > 0))


def fit(
    loss: Callable[[Params, Array, PatchLabels, Array], Float[Array, ""]],
    params: dict[str, Any],
    optimizer: OptimizerConfig,
    pictures: Pictures,
    labels: PatchLabels,
    *,
    steps: int,
    batch: int,
    seed: int,
    on_step: Callable[[int], Any],
) -> dict[str, Any]:
    """Minimises `loss(params, pictures, labels, key)` over random batches, and returns the trained parameters."""
    rule = make_optimizer(optimizer, steps)

    @jax.jit
    def step(params: dict[str, Any], state: optax.OptState, *batch: Any) -> tuple[dict[str, Any], optax.OptState]:
        updates, state = rule.update(jax.grad(loss)(params, *batch), state, params)
        updated: dict[str, Any] = optax.apply_updates(params, updates)
        return updated, state

    state, draws, key = rule.init(params), np.random.default_rng(seed), jax.random.key(seed)
    for number in range(1, steps + 1):
        chosen = draws.integers(len(pictures), size=batch)
        some = PatchLabels(*(kind[chosen] for kind in labels))
        params, state = step(params, state, pictures[chosen], some, jax.random.fold_in(key, number))
        on_step(number)
    jax.block_until_ready(params)
    return params


def train_vision(
    vision: Params,
    config: VisionConfig,
    optimizer: OptimizerConfig,
    pictures: Pictures,
    labels: PatchLabels,
    *,
    steps: int,
    batch: int,
    seed: int,
    on_step: Callable[[int], Any] = lambda step: None,
) -> tuple[Params, Params]:
    """Trains the parameters `vision` of an encoder to label every patch.

    Returns the trained parameters of the encoder, and of the heads, by which `patch_accuracies` measures it.
    """
    reader = PatchReader(config)

    def loss(params: Params, pictures: Array, labels: PatchLabels, key: Array) -> Float[Array, ""]:
        return labels_loss(cast(Any, reader.apply({"params": params}, pictures)), labels)

    initial: Any = reader.init(jax.random.key(seed), jnp.asarray(pictures[:1]))
    params = {**initial["params"], "vision": vision}
    trained = fit(loss, params, optimizer, pictures, labels, steps=steps, batch=batch, seed=seed, on_step=on_step)
    return trained["vision"], trained["heads"]


def patch_accuracies(
    vision: Params, heads: Params, config: VisionConfig, pictures: Pictures, labels: PatchLabels, batch: int = 100
) -> Accuracies:
    """Returns the share of patches that are labelled right, by kind of label, among those with a thing on them."""
    # Parameters are an argument, because the compiler would take time to fold constants.
    read, variables = jax.jit(PatchReader(config).apply), {"params": {"heads": heads, "vision": vision}}
    right: dict[str, list[Int[np.ndarray, " patches"]]] = {kind: [] for kind in NUMBERS}
    for start in range(0, len(pictures), batch):
        said = read(variables, pictures[start : start + batch])
        on = labels.shape[start : start + batch] > 0
        for kind in NUMBERS:
            wanted = getattr(labels, kind)[start : start + batch]
            right[kind].append((np.argmax(said[kind], axis=-1) == wanted)[on])
    return {kind: float(np.concatenate(found).mean()) for kind, found in right.items()}
