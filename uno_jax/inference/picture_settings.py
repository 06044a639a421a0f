"""Settings of a picture, shared by the command line, prompt files and notebooks."""

from __future__ import annotations

import re
from dataclasses import dataclass

from uno_jax.config import ConfigError
from uno_jax.data.transforms import ImageTransform
from uno_jax.models.config import ModelConfig
from uno_jax.sampling.guidance import GuidanceConfig, Rescale
from uno_jax.sampling.schedule import FlowConfig

LARGEST_SEED = 2**31 - 1


@dataclass(frozen=True)
class PictureSettings:
    """Settings of a picture, validated at construction. The defaults are those of BAGEL's public implementation."""

    seed: int = 0
    """Seed of the noise: the same seed gives the same noise, bit for bit, in any batch and on any mesh."""
    size: str = ""
    """WIDTHxHEIGHT in pixels, such as `96x64`. Empty: derived from the aspect."""
    aspect: str = ""
    """WIDTH:HEIGHT, such as `4:3`; the longer side is the maximum of the model. Empty: the size of the last picture of
    the context, or a square without such a picture. Not together with a size."""
    negative: str = ""
    """Negative prompt, which guidance leads away from."""
    think: bool = False
    """Whether the model first writes a plan of the picture, which then ends the context."""
    timesteps: int = FlowConfig.timesteps
    """Times of the grid, including both ends; one more than there are steps."""
    time_shift: float | None = None
    """Shift of the time grid. None: that of the training run."""
    text_scale: float = GuidanceConfig.text_scale
    image_scale: float = GuidanceConfig.image_scale
    interval: tuple[float, float] = GuidanceConfig.interval
    rescale: Rescale = GuidanceConfig.rescale
    rescale_min: float = GuidanceConfig.rescale_min
    solver_order: int = FlowConfig.solver_order
    refresh_every: int = FlowConfig.refresh_every
    feature_order: int = FlowConfig.feature_order

    def __post_init__(self) -> None:
        check_seed(self.seed)
        _two_numbers(self.size, "x", "size", "96x64, width and height in pixels")
        _two_numbers(self.aspect, ":", "aspect", "4:3, width to height")
        if self.size and self.aspect:
            raise ConfigError(f"size is {self.size} and aspect is {self.aspect}: give one of them, not both")
        self.flow(1.0)

    def flow(self, time_shift: float) -> FlowConfig:
        """Returns the sampler config; `time_shift` is the checkpoint's, used if the settings have none."""
        guidance = GuidanceConfig(self.text_scale, self.image_scale, self.interval, self.rescale, self.rescale_min)
        return FlowConfig(
            timesteps=self.timesteps,
            time_shift=time_shift if self.time_shift is None else self.time_shift,
            guidance=guidance,
            solver_order=self.solver_order,
            refresh_every=self.refresh_every,
            feature_order=self.feature_order,
        )


def check_seed(seed: int) -> None:
    """Checks that a seed is a non-negative int32, because it is folded into random keys.

    Raises:
      ConfigError: the seed is out of range.
    """
    if not 0 <= seed <= LARGEST_SEED:
        raise ConfigError(f"seed is {seed}: expected 0 to {LARGEST_SEED}")


def picture_size(
    settings: PictureSettings, model: ModelConfig, transform: ImageTransform, last_picture: tuple[int, int] | None
) -> tuple[int, int]:
    """Returns height and width in pixels of the picture to generate.

    Args:
      settings: settings, optionally with a size or an aspect.
      model: sizes of the model. Its latent tokens and position table limit the size.
      transform: transform of the autoencoder, whose longest side is the default.
      last_picture: resized height and width of the last picture of the context, or None.

    Raises:
      ConfigError: a side is not a multiple of the latent token size, or exceeds the position table of the model.
    """
    unit, maximum = model.pixels_per_token, model.max_latent_size * model.pixels_per_token
    if settings.size:
        width, height = _two_numbers(settings.size, "x", "size", "")
        if width % unit or height % unit or max(width, height) > maximum:
            raise ConfigError(
                f"size is {settings.size}: expected multiples of {unit} of at most {maximum} pixels, because this "
                f"model has latent tokens of {unit} pixels and a position table of {model.max_latent_size} per side"
            )
        return height, width
    if not settings.aspect and last_picture is not None:
        return last_picture
    longest = min(transform.largest_side, maximum) // unit * unit
    width, height = _two_numbers(settings.aspect or "1:1", ":", "aspect", "")
    scale = longest / max(width, height)
    return max(unit, round(height * scale / unit) * unit), max(unit, round(width * scale / unit) * unit)


def _two_numbers(text: str, between: str, name: str, example: str) -> tuple[int, int]:
    """Parses both numbers; an empty text gives zeros."""
    if not text:
        return 0, 0
    match = re.fullmatch(rf"([1-9]\d{{0,8}}){between}([1-9]\d{{0,8}})", text, re.ASCII)
    if match is None:
        raise ConfigError(f"{name} is {text!r}: expected a value such as {example}")
    return int(match[1]), int(match[2])
