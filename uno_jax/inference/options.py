"""Command-line flags that `sample`, `chat` and `demo` share: which model, where it lies, how it thinks, how pictures
are made."""

from __future__ import annotations

import typing
from typing import Any

from absl import flags

from uno_jax.config import Dtype
from uno_jax.inference.generate import Generator, load_generator
from uno_jax.inference.picture_settings import PictureSettings
from uno_jax.inference.thinking import ThinkingConfig
from uno_jax.parallel.flags import define_mesh, mesh_config
from uno_jax.process.flags import define_fields, field_values, section_of
from uno_jax.sampling.text import TextConfig

_PICTURES = {
    "seed": "of the noise; the same seed gives the same noise in any batch",
    "size": "WIDTHxHEIGHT in pixels; without it, by the aspect",
    "aspect": "WIDTH:HEIGHT, at the model's largest size; without it, of the last picture, or square",
    "negative": "a prompt that guidance leads away from",
    "timesteps": "times of the grid, both ends included: one step fewer",
    "time_shift": "of the grid; without it, as the checkpoint was trained",
    "text_scale": "guidance by the prompt; up to 1: no guidance at all",
    "image_scale": "guidance by the pictures; up to 1: none",
    "interval": "LOW,HIGH: times at which guidance acts",
    "rescale": "of the guided velocity",
    "rescale_min": "its least factor; 1: none",
    "solver_order": "1 (Euler) or 2 (Adams-Bashforth)",
    "refresh_every": "of so many steps one runs through the layers, the others are extrapolated",
    "feature_order": "degree of that extrapolation, 0 to 2",
}
_TEXTS = {
    "max_length": "tokens, the start token counted",
    "temperature": "of the softmax that tokens are drawn from; 0: always the likeliest",
    "top_p": "tokens are drawn from the likeliest that together reach this probability",
}
_THINKING = {
    "drawing_prompt": "system prompt of thinking before a picture, in place of our own wording",
    "answering_prompt": "the same before an answer",
}
_THOUGHTS = "think_"
"""Prefix of the flags of thoughts before a picture, where a command writes no other text."""


def define_model(flag_values: flags.FlagValues) -> None:
    """Defines the flags that `load_from_flags` reads."""
    note = "a run's workdir, one of its checkpoints, or a directory in the public layout"
    place = section_of(flag_values, "model")
    flags.DEFINE_string("checkpoint", None, note, **place)
    flags.DEFINE_boolean("ema", False, "take the averages of the trained parameters", **place)
    note = "of the computation; without it, as stored and configured"
    flags.DEFINE_enum("dtype", None, typing.get_args(Dtype), note, **place)
    define_mesh(flag_values, "this host's devices")
    define_fields(flag_values, ThinkingConfig(), _THINKING, "thinking")


def load_from_flags(flag_values: flags.FlagValues, thoughts: TextConfig) -> Generator:
    """The model that the flags name; `thoughts` says how those before a picture are written.

    Raises:
      CheckpointError, CheckpointMismatch, ConfigError: as of `load_reader`.
    """
    thinking = ThinkingConfig(**field_values(flag_values, _THINKING), text=thoughts)
    mesh, dtype = mesh_config(flag_values), flag_values.dtype
    return load_generator(flag_values.checkpoint, ema=flag_values.ema, dtype=dtype, mesh=mesh, thinking=thinking)


def define_pictures(flag_values: flags.FlagValues) -> None:
    """Defines the flags that `picture_settings` reads: one for each field of `PictureSettings` but `think`."""
    define_fields(flag_values, PictureSettings(), _PICTURES, "pictures")


def picture_settings(flag_values: flags.FlagValues, **changes: Any) -> PictureSettings:
    """The settings that the flags give.

    Raises:
      ConfigError: one is out of its range; the message names it.
    """
    return PictureSettings(**(field_values(flag_values, _PICTURES) | changes))


def define_texts(flag_values: flags.FlagValues) -> None:
    """Defines the flags that `text_config` reads: one for each field of `TextConfig`."""
    define_fields(flag_values, TextConfig(), _TEXTS, "answers and thoughts")


def text_config(flag_values: flags.FlagValues) -> TextConfig:
    """How all texts are written.

    Raises:
      ConfigError: a flag is out of its range; the message names it.
    """
    return TextConfig(**field_values(flag_values, _TEXTS))


def define_thoughts(flag_values: flags.FlagValues) -> None:
    """Defines the flags that `thought_config` reads, for a command that writes no other text."""
    define_fields(flag_values, ThinkingConfig().text, _TEXTS, "thoughts before a picture", _THOUGHTS)


def thought_config(flag_values: flags.FlagValues) -> TextConfig:
    """How thoughts before a picture are written.

    Raises:
      ConfigError: a flag is out of its range; the message names it.
    """
    return TextConfig(**field_values(flag_values, _TEXTS, _THOUGHTS))
