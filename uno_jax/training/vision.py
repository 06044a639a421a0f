"""Training of a vision encoder alone, on what lies on each patch of pictures of scenes.

A public vision encoder has seen billions of pictures. That of a small model learns from labels of every patch, which
takes minutes. Without this, a model that learns to see from captions alone names colours after hours, and no shapes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, UInt8

from uno_jax.data.scenes.patches import NUMBERS, PatchLabels
from uno_jax.models.autoencoder import patchify_latents
from uno_jax.models.config import VisionConfig
from uno_jax.models.vision import VisionEncoder
from uno_jax.training.optimizer import OptimizerConfig, make_optimizer
from uno_jax.training.state import Params

Pictures = UInt8[np.ndarray, "pictures height width 3"]
Accuracies = dict[str, float]


class PatchReader(nn.Module):
    """A vision encoder with a linear head for each kind of label."""

    config: VisionConfig

    @nn.compact
    def __call__(self, pictures: UInt8[Array, "pictures height width 3"]) -> dict[str, Array]:
        """Returns logits by kind of label, `[pictures, patches, classes]`, and `centre`, `[pictures, patches, 2]`."""
        size = self.config.patch_size
        patches = patchify_latents(pictures.astype(jnp.float32) / 127.5 - 1, size)
        rows, columns = pictures.shape[1] // size, pictures.shape[2] // size
        places = np.arange(rows)[:, None] * self.config.table_side + np.arange(columns)
        positions = jnp.broadcast_to(places.reshape(-1), patches.shape[:2])
        features = VisionEncoder(self.config, name="vision")(patches, positions, jnp.ones(patches.shape[:2], jnp.int32))
        heads = NUMBERS | {"centre": 2}
        return {kind: nn.Dense(outputs, name=kind)(features) for kind, outputs in heads.items()}


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
    """Trains the parameters `vision` of an encoder, with cross-entropies and a squared distance of all patches.

    Returns the trained parameters of the encoder, and of the heads, by which `patch_accuracies` measures it.
    """
    reader, rule = PatchReader(config), make_optimizer(optimizer, steps)
    params = {**_heads(reader, seed, pictures[:1]), "vision": vision}

    def loss(params: dict[str, Any], pictures: Array, labels: PatchLabels) -> Float[Array, ""]:
        said: Any = reader.apply({"params": params}, pictures)
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
        chosen = draws.integers(len(pictures), size=batch)
        params, state = step(params, state, pictures[chosen], PatchLabels(*(kind[chosen] for kind in labels)))
        on_step(number)
    jax.block_until_ready(params)
    return params["vision"], {name: head for name, head in params.items() if name != "vision"}


def _heads(reader: PatchReader, seed: int, pictures: Pictures) -> dict[str, Any]:
    """Initialises the parameters of the heads at random."""
    variables: Any = reader.init(jax.random.key(seed), jnp.asarray(pictures))
    return {name: head for name, head in variables["params"].items() if name != "vision"}


def patch_accuracies(
    vision: Params, heads: Params, config: VisionConfig, pictures: Pictures, labels: PatchLabels, batch: int = 100
) -> Accuracies:
    """Returns the share of patches that are labelled right, by kind of label, among those with a thing on them."""
    read = jax.jit(lambda pictures: PatchReader(config).apply({"params": {**heads, "vision": vision}}, pictures))
    right: dict[str, list[Int[np.ndarray, " patches"]]] = {kind: [] for kind in NUMBERS}
    for start in range(0, len(pictures), batch):
        said = read(pictures[start : start + batch])
        on = labels.shape[start : start + batch] > 0
        for kind in NUMBERS:
            wanted = getattr(labels, kind)[start : start + batch]
            right[kind].append((np.argmax(said[kind], axis=-1) == wanted)[on])
    return {kind: float(np.concatenate(found).mean()) for kind, found in right.items()}
