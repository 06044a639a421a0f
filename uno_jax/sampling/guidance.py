"""Classifier-free guidance: combines up to three predictions of a velocity into the guided velocity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from uno_jax.config import ConfigError

Rescale = Literal["global", "channel", "text_channel"]


_LARGEST_SCALE = 3e38


@dataclass(frozen=True)
class GuidanceConfig:
    """Settings of guidance: the `cfg_*` settings of BAGEL's public implementation, with its defaults."""

    text_scale: float = 4.0
    """Scale of guidance by the last text: velocity = without + scale * (with - without).

    At most 1: no guidance, not even by images.
    """
    image_scale: float = 1.5
    """Scale of guidance by the images of the context, applied after that by text. At most 1: none."""
    interval: tuple[float, float] = (0.4, 1.0)
    """Guidance applies at times low < t <= high. At other times only the conditional velocity is computed."""
    rescale: Rescale = "global"
    """Rescaling of the guided velocity down to the norm of the conditional one.

    The norms are per image (`global`), per token (`channel`), or per token before guidance by images (`text_channel`).
    """
    rescale_min: float = 0.0
    """Minimum factor of the rescaling; 1: no rescaling."""

    def __post_init__(self) -> None:
        for name in ("text_scale", "image_scale"):
            if not abs(getattr(self, name)) < _LARGEST_SCALE:
                raise ConfigError(f"{name} is {getattr(self, name)}: expected a finite number of float32")
        low, high = self.interval
        if not 0 <= low <= high <= 1:
            raise ConfigError(f"interval is {self.interval}: expected times 0 <= low <= high <= 1")
        if self.rescale not in get_args(Rescale):
            raise ConfigError(f"rescale is {self.rescale!r}: expected one of {', '.join(get_args(Rescale))}")
        if not 0 <= self.rescale_min <= 1:
            raise ConfigError(f"rescale_min is {self.rescale_min}: expected a factor from 0 to 1")

    def acts(self, times: Float[np.ndarray, " steps"]) -> Bool[np.ndarray, " steps"]:
        """Whether guidance applies at each of the times."""
        low, high = self.interval
        return (self.text_scale > 1) & (low < times) & (times <= high)


class GuidanceNumbers(NamedTuple):
    """The numeric settings as arrays, so that other numbers do not trigger a compilation."""

    text_scale: Float[Any, ""]
    image_scale: Float[Any, ""] | None
    """None: no guidance by images."""
    rescale_min: Float[Any, ""]


def guidance_numbers(config: GuidanceConfig) -> GuidanceNumbers:
    """Converts the numeric settings of a config to arrays."""
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
    """Computes the guided velocity as in BAGEL's public implementation.

    Norms are over the `real` latents of each image, without padding. `without_image` is ignored if there is no guidance
    by images.
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
