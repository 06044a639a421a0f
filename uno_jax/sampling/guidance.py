"""Guidance: three predictions of one velocity, made into the velocity that a step goes by."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from uno_jax.config import ConfigError

Rescale = Literal["global", "channel", "text_channel"]


@dataclass(frozen=True)
class GuidanceConfig:
    """How strongly the context pulls (the public implementation's `cfg_*` settings, and its defaults)."""

    text_scale: float = 4.0
    """By the last text: velocity = without + scale * (with - without). Up to 1: no guidance, by images neither."""
    image_scale: float = 1.5
    """By the images of the context, in the same way, on top of the text's. Up to 1: none."""
    interval: tuple[float, float] = (0.4, 1.0)
    """Guidance acts at times low < t <= high; at others only the conditional velocity is computed."""
    rescale: Rescale = "global"
    """Scales the guided velocity down to the conditional one's norm: over a whole picture (`global`), token by token
    (`channel`), or token by token before the images' guidance (`text_channel`)."""
    rescale_min: float = 0.0
    """The least factor of that; 1: no rescaling."""

    def __post_init__(self) -> None:
        for name in ("text_scale", "image_scale"):
            if not math.isfinite(getattr(self, name)):
                raise ConfigError(f"{name} is {getattr(self, name)}: expected a finite number")
        low, high = self.interval
        if not 0 <= low <= high <= 1:
            raise ConfigError(f"interval is {self.interval}: expected 0 <= low <= high <= 1, times of guidance")
        if self.rescale not in get_args(Rescale):
            raise ConfigError(f"rescale is {self.rescale!r}: expected one of {', '.join(get_args(Rescale))}")
        if not 0 <= self.rescale_min <= 1:
            raise ConfigError(f"rescale_min is {self.rescale_min}: expected 0 to 1, the least factor of rescaling")

    def acts(self, times: Float[np.ndarray, " steps"]) -> Bool[np.ndarray, " steps"]:
        """At which of the times there is guidance."""
        low, high = self.interval
        return (self.text_scale > 1) & (low < times) & (times <= high)


class GuidanceNumbers(NamedTuple):
    """The numbers of a config, as arrays: other numbers need no other program."""

    text_scale: Float[Any, ""]
    image_scale: Float[Any, ""] | None
    """None: no guidance by images."""
    rescale_min: Float[Any, ""]


def guidance_numbers(config: GuidanceConfig) -> GuidanceNumbers:
    return GuidanceNumbers(
        np.float32(config.text_scale),
        np.float32(config.image_scale) if config.image_scale > 1 else None,
        np.float32(config.rescale_min),
    )


def guide(
    conditional: Float[Array, "batch latents latent_size"],
    without_text: Float[Array, "batch latents latent_size"],
    without_image: Float[Array, "batch latents latent_size"],
    real: Bool[Array, "batch latents"],
    numbers: GuidanceNumbers,
    rescale: Rescale,
) -> Float[Array, "batch latents latent_size"]:
    """The guided velocity (conventions 17 to 19). Norms are those of each picture's `real` latents, padding left out.

    `without_image` is not read where there is no guidance by images.
    """

    def norm(velocity: Array) -> Array:
        squares = jnp.where(real[..., None], jnp.square(velocity), 0.0)
        return jnp.sqrt(jnp.sum(squares, axis=(1, 2) if rescale == "global" else 2, keepdims=True))

    def rescaled(velocity: Array) -> Array:
        return velocity * jnp.clip(norm(conditional) / (norm(velocity) + 1e-8), numbers.rescale_min, 1.0)

    guided = without_text + numbers.text_scale * (conditional - without_text)
    if rescale == "text_channel":
        guided = rescaled(guided)
    if numbers.image_scale is not None:
        guided = without_image + numbers.image_scale * (guided - without_image)
    return guided if rescale == "text_channel" else rescaled(guided)
