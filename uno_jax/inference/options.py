"""Command-line flags that commands which load a model share: model, mesh, thinking, pictures and text."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any

from absl import flags

from uno_jax.config import Dtype
from uno_jax.inference.generate import Generator, load_generator
from uno_jax.inference.picture_settings import PictureSettings
from uno_jax.inference.reader import Reader, load_reader
from uno_jax.inference.thinking import ThinkingConfig
from uno_jax.models.quantised import Weights
from uno_jax.parallel.flags import define_mesh, mesh_config
from uno_jax.process.flags import ValueParser, define_fields, define_path, define_typed, field_values, section_of
from uno_jax.sampling.text import TextConfig

_PICTURES = {
    "seed": "seed of the noise, which does not depend on the batch",
    "size": "WIDTHxHEIGHT in pixels; default: by --aspect",
    "aspect": "WIDTH:HEIGHT, at the model's maximum size; default: that of the last picture, or square",
    "negative": "negative prompt, which guidance leads away from",
    "timesteps": "times of the grid, including both ends; one more than there are steps",
    "time_shift": "shift of the time grid; default: that of the training run",
    "text_scale": "scale of text guidance; 1 or less disables it",
    "image_scale": "scale of image guidance; 1 or less disables it",
    "interval": "LOW,HIGH: times with guidance",
    "rescale": "normalisation of the guided velocity",
    "rescale_min": "minimum factor of --rescale; 1 disables it",
    "solver_order": "order of the solver: 1 (Euler) or 2 (Adams-Bashforth)",
    "refresh_every": "run the layers every N steps, and extrapolate the steps in between",
    "feature_order": "degree of the extrapolation, 0 to 2",
}
_TEXTS = {
    "max_length": "maximum tokens, including the start token",
    "temperature": "temperature of the softmax; 0: greedy decoding",
    "top_p": "sample from the most likely tokens with this total probability",
}
_THINKING = {
    "drawing_prompt": "system prompt for thinking before a picture",
    "answering_prompt": "system prompt for thinking before an answer",
}
_THOUGHTS = "think_"
"""Prefix of the text flags in commands whose only text is thoughts before a picture."""


def define_reader(flag_values: flags.FlagValues) -> None:
    """Defines the flags of `reader_from_flags`."""
    note = "a run's workdir, one of its checkpoints, or a directory in the public layout"
    place = section_of(flag_values, "model")
    define_path(flag_values, "checkpoint", None, note, "model")
    flags.DEFINE_boolean("ema", False, "use the EMA of the trained parameters", **place)
    note = "dtype of the parameters and the computation; default: as stored and configured"
    flags.DEFINE_enum("dtype", None, typing.get_args(Dtype), note, **place)
    note = "int8 rounds the large kernels, for half the memory of bfloat16"
    flags.DEFINE_enum("weights", "plain", typing.get_args(Weights), note, **place)
    define_mesh(flag_values, "this host's devices")


def reader_from_flags(flag_values: flags.FlagValues) -> Reader:
    """Loads the model given by the flags, to read contexts and write text.

    Raises:
      CheckpointError, CheckpointMismatch, ConfigError: as for `load_reader`.
    """
    mesh, dtype = mesh_config(flag_values), flag_values.dtype
    path, weights = flag_values.checkpoint, flag_values.weights
    return load_reader(path, ema=flag_values.ema, dtype=dtype, mesh=mesh, weights=weights)


def define_model(flag_values: flags.FlagValues) -> None:
    """Defines the flags of `load_from_flags`."""
    define_reader(flag_values)
    define_fields(flag_values, ThinkingConfig(), _THINKING, "thinking")


def load_from_flags(
    flag_values: flags.FlagValues, thoughts: TextConfig | None = None, *, other: str | None = None
) -> Generator:
    """Loads the model given by the flags.

    Args:
      flag_values: the flags.
      thoughts: sampling of thoughts before a picture; None uses the defaults.
      other: a checkpoint that is loaded instead, in the same way but without its EMA.

    Raises:
      CheckpointError, CheckpointMismatch, ConfigError: as for `load_reader`.
    """
    thinking = ThinkingConfig(**field_values(flag_values, _THINKING))
    thinking = thinking if thoughts is None else dataclasses.replace(thinking, text=thoughts)
    path, ema = (flag_values.checkpoint, flag_values.ema) if other is None else (other, False)
    mesh, dtype, weights = mesh_config(flag_values), flag_values.dtype, flag_values.weights
    return load_generator(path, ema=ema, dtype=dtype, mesh=mesh, weights=weights, thinking=thinking)


def define_pictures(flag_values: flags.FlagValues, *, seed: bool = True) -> None:
    """Defines the flags of `picture_settings`: one for each field of `PictureSettings` except `think`.

    Without `seed`, there is no flag for it either.
    """
    notes = {name: note for name, note in _PICTURES.items() if seed or name != "seed"}
    define_fields(flag_values, PictureSettings(), notes, "pictures")


def define_changes(flag_values: flags.FlagValues, section: str) -> None:
    """Defines the flags of `changed_settings`: one for each field of `PictureSettings` except `seed`, all optional."""
    kinds = typing.get_type_hints(PictureSettings)
    for name, note in _PICTURES.items():
        if name != "seed":
            define_typed(flag_values, name, kinds[name], None, note, section)
    define_typed(flag_values, "think", bool, None, "write a plan of the picture first", section)


def changed_settings(flag_values: flags.FlagValues, settings: PictureSettings) -> PictureSettings:
    """Returns settings with the flags that were given.

    Raises:
      ConfigError: a flag is out of range. The message names it.
    """
    names = [field.name for field in dataclasses.fields(settings) if field.name != "seed"]
    given: dict[str, Any] = {name: flag_values[name].value for name in names if flag_values[name].present}
    return dataclasses.replace(settings, **given)


def define_part(flag_values: flags.FlagValues, section: str, does: str = "generates every N-th picture") -> None:
    """Defines `--part`, the share of one of several processes: a pair of its index and their number, or None."""
    note = f"I/N: process I of N, from 0, {does}; default: by JAX's process index"
    flags.DEFINE(ValueParser(_part), "part", None, note, **section_of(flag_values, section))


def _part(text: str) -> tuple[int, int]:
    try:
        number, count = (int(digits) for digits in text.split("/"))
    except ValueError:
        number, count = -1, 0
    if not 0 <= number < count:
        raise ValueError(f"{text!r}: expected I/N with I from 0 to N - 1, such as 0/4")
    return number, count


def picture_settings(flag_values: flags.FlagValues, **changes: Any) -> PictureSettings:
    """Returns the settings given by the flags, updated by `changes`.

    Raises:
      ConfigError: a flag is out of range. The message names it.
    """
    defined = [name for name in _PICTURES if name in flag_values]
    return PictureSettings(**(field_values(flag_values, defined) | changes))


def define_metadata(flag_values: flags.FlagValues, section: str, note: str) -> None:
    """Defines `--metadata`: what generated picture files say of their origin. `note` says what else follows."""
    note = f"what is stored in a picture: all its settings and texts, or none{note}"
    flags.DEFINE_enum("metadata", "all", ["all", "none"], note, **section_of(flag_values, section))


def define_texts(
    flag_values: flags.FlagValues, section: str = "answers and thoughts", defaults: TextConfig | None = None
) -> None:
    """Defines the flags of `text_config`: one for each field of `TextConfig`."""
    define_fields(flag_values, defaults or TextConfig(), _TEXTS, section)


def text_config(flag_values: flags.FlagValues) -> TextConfig:
    """Returns the sampling of all texts.

    Raises:
      ConfigError: a flag is out of range. The message names it.
    """
    return TextConfig(**field_values(flag_values, _TEXTS))


def define_thoughts(flag_values: flags.FlagValues) -> None:
    """Defines the flags of `thought_config`, for commands without other text."""
    define_fields(flag_values, ThinkingConfig().text, _TEXTS, "thoughts before a picture", _THOUGHTS)


def thought_config(flag_values: flags.FlagValues) -> TextConfig:
    """Returns the sampling of thoughts before a picture.

    Raises:
      ConfigError: a flag is out of range. The message names it.
    """
    return TextConfig(**field_values(flag_values, _TEXTS, _THOUGHTS))
