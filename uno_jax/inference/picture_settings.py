"""What a person can set for a picture: one flat list, for the command line, prompt files and notebooks alike."""

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
    """How a picture is made. The defaults are the public implementation's; fields are checked as they are given."""

    seed: int = 0
    """Of the noise: the same seed gives the same noise bits in any batch and on any mesh."""
    size: str = ""
    """WIDTHxHEIGHT in pixels, as `96x64`. Empty: by the aspect."""
    aspect: str = ""
    """WIDTH:HEIGHT, as `4:3`; the longer side is the model's largest. Empty: that of the last picture of the context,
    at its own size; a square where there is none."""
    negative: str = ""
    """A prompt that guidance leads away from."""
    think: bool = False
    """The model first writes what it is going to draw, and draws with that in its context."""
    timesteps: int = FlowConfig.timesteps
    """Times of the grid, both ends included: one step fewer."""
    time_shift: float | None = None
    """None: that which the checkpoint was trained with."""
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
        self.flow(1.0)

    def flow(self, time_shift: float) -> FlowConfig:
        """How the denoising goes; `time_shift` is that of the checkpoint, which counts where none is set."""
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
    """Demands a seed that an int32 holds, for keys are folded from it.

    Raises:
      ConfigError: it is less than 0, or too large.
    """
    if not 0 <= seed <= LARGEST_SEED:
        raise ConfigError(f"seed is {seed}: expected 0 to {LARGEST_SEED}")


def picture_size(
    settings: PictureSettings, model: ModelConfig, transform: ImageTransform, last_picture: tuple[int, int] | None
) -> tuple[int, int]:
    """Height and width in pixels of the picture to make.

    Args:
      settings: they may name a size, or an aspect.
      model: its latent tokens and their position table bound sizes.
      transform: its longest side is that of pictures of which nothing else is said.
      last_picture: height and width of the context's last picture, as the model reads it; None: there is none.

    Raises:
      ConfigError: the size is not made of whole latent tokens, or larger than the model's position table.
    """
    unit, most = model.pixels_per_token, model.max_latent_size * model.pixels_per_token
    if settings.size:
        width, height = _two_numbers(settings.size, "x", "size", "")
        if width % unit or height % unit or max(width, height) > most:
            raise ConfigError(
                f"size is {settings.size}: expected sides that are multiples of {unit}, of at most {most} pixels, as "
                f"this model's latent tokens are {unit} pixels wide and its position table is "
                f"{model.max_latent_size} of them"
            )
        return height, width
    if not settings.aspect and last_picture is not None:
        return last_picture
    longest = min(transform.largest_side, most) // unit * unit
    width, height = _two_numbers(settings.aspect or "1:1", ":", "aspect", "")
    scale = longest / max(width, height)
    return max(unit, round(height * scale / unit) * unit), max(unit, round(width * scale / unit) * unit)


def _two_numbers(text: str, between: str, name: str, example: str) -> tuple[int, int]:
    """Both numbers; 0 for an empty text."""
    if not text:
        return 0, 0
    match = re.fullmatch(rf"([1-9]\d*){between}([1-9]\d*)", text, re.ASCII)
    if match is None:
        raise ConfigError(f"{name} is {text!r}: expected something like {example}")
    return int(match[1]), int(match[2])
