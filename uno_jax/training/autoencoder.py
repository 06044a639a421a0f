"""Training of the transformer autoencoder of a small model on pictures of scenes.

It learns to draw pictures from its latents, and its latents to say what lies on each patch. So a small model can read
them, and need not draw every pixel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from uno_jax.data.scenes.patches import PatchLabels
from uno_jax.models.autoencoder import make_autoencoder
from uno_jax.models.config import AutoencoderConfig
from uno_jax.models.positions import pixels_to_float
from uno_jax.training.optimizer import OptimizerConfig
from uno_jax.training.state import Params
from uno_jax.training.vision import PatchLabeller, Pictures, fit, labels_loss

LABELS_WEIGHT = 0.01
"""Weight of the labels against the squared error of pixels in [-1, 1]."""
MOST_NOISE = 0.4
"""Largest standard deviation of the noise that the decoder learns to draw through, because sampled latents are
inexact. Latents have a standard deviation of 1."""


def train_autoencoder(
    params: Params,
    config: AutoencoderConfig,
    optimizer: OptimizerConfig,
    pictures: Pictures,
    labels: PatchLabels,
    *,
    steps: int,
    batch: int,
    seed: int,
    on_step: Callable[[int], Any] = lambda step: None,
) -> Params:
    """Trains the parameters of an autoencoder to draw pictures through noised latents, and to label their patches.

    `labels` are those of the squares of pixels under one latent.
    """
    autoencoder, labeller = make_autoencoder(config), PatchLabeller()

    def loss(params: Params, pictures: Array, labels: PatchLabels, key: Array) -> Float[Array, ""]:
        images, variables = pixels_to_float(pictures), {"params": params["autoencoder"]}
        moments: Any = autoencoder.apply(variables, images, method="encode")
        mean = jnp.split(moments, 2, axis=-1)[0]
        noise_key, size_key = jax.random.split(key)
        size = jax.random.uniform(size_key, (len(images), 1, 1, 1), maxval=MOST_NOISE)
        latents = mean + size * jax.random.normal(noise_key, mean.shape)
        drawn: Any = autoencoder.apply(variables, config.scale * (latents - config.shift), method="decode")
        said: Any = labeller.apply({"params": params["heads"]}, latents.reshape(len(images), -1, latents.shape[-1]))
        return jnp.mean(jnp.square(drawn - images)) + LABELS_WEIGHT * labels_loss(said, labels)

    heads: Any = labeller.init(jax.random.key(seed), jnp.zeros((1, 1, config.latent_channels)))
    start = {"autoencoder": params, "heads": heads["params"]}
    trained = fit(loss, start, optimizer, pictures, labels, steps=steps, batch=batch, seed=seed, on_step=on_step)
    learned: Params = trained["autoencoder"]
    return learned


def redrawn(params: Params, config: AutoencoderConfig, pictures: Pictures, batch: int = 100) -> Pictures:
    """Encodes pictures and decodes them again."""
    run, variables = jax.jit(make_autoencoder(config).apply), {"params": params}
    drawn = [run(variables, pixels_to_float(pictures[i : i + batch])) for i in range(0, len(pictures), batch)]
    pixels = (np.concatenate([np.asarray(some) for some in drawn]) + 1) * 127.5
    return np.clip(np.round(pixels), 0, 255).astype(np.uint8)
