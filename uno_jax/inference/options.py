"""Options that `sample`, `chat` and `demo` share: which model, where it lies, how it thinks, how pictures are made."""

from __future__ import annotations

import argparse
import dataclasses
import typing
from collections.abc import Callable
from typing import Any

from uno_jax.inference.generate import Generator, load_generator
from uno_jax.inference.picture_settings import PictureSettings
from uno_jax.inference.thinking import ThinkingConfig
from uno_jax.parallel.mesh import MeshConfig
from uno_jax.sampling.text import TextConfig

Options = argparse._ActionsContainer
"""A parser, or a group of one."""

_AXES = ("data", "fsdp", "tensor", "sequence")
_NOTES = {
    "seed": "of the noise; the same seed gives the same noise in any batch",
    "size": "WIDTHxHEIGHT in pixels (default: by the aspect)",
    "aspect": "WIDTH:HEIGHT, at the model's largest size (default: of the last picture, or square)",
    "negative": "a prompt that guidance leads away from",
    "timesteps": "times of the grid, both ends included: one step fewer",
    "time_shift": "default: as the checkpoint was trained",
    "text_scale": "guidance by the prompt; up to 1: no guidance at all",
    "image_scale": "guidance by the pictures; up to 1: none",
    "interval": "times at which guidance acts",
    "rescale": "of the guided velocity: global, channel or text_channel",
    "rescale_min": "its least factor; 1: none",
    "solver_order": "1 (Euler) or 2 (Adams-Bashforth)",
    "refresh_every": "of so many steps one runs through the layers, the others are extrapolated",
    "feature_order": "degree of that extrapolation, 0 to 2",
}
_TEXT_NOTES = {
    "max_length": "tokens, the start token counted",
    "temperature": "of the softmax that tokens are drawn from; 0: always the likeliest",
    "top_p": "tokens are drawn from the likeliest that together reach this probability",
}
THOUGHTS = "think_"
"""Prefix of text options that are about thoughts before a picture, where a command writes no other text."""


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Those that `load_from_options` reads, with `thoughts`."""
    parser.add_argument(
        "--checkpoint",
        required=True,
        metavar="PATH",
        help="a run's workdir, one of its checkpoints, or a directory in the public layout",
    )
    parser.add_argument("--ema", action="store_true", help="take the averages of the trained parameters")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="default: as stored and configured")
    for axis in _AXES:
        default = getattr(MeshConfig(), axis)
        note = f"this host's devices along the mesh axis {axis} (default {default}; -1: those that are left)"
        parser.add_argument(f"--mesh.{axis}", dest=f"mesh_{axis}", type=int, default=default, metavar="N", help=note)
    for name in ("drawing_prompt", "answering_prompt"):
        note = "system prompt of thinking, in place of our own wording"
        parser.add_argument(f"--{name}", default=getattr(ThinkingConfig(), name), metavar="TEXT", help=note)


def load_from_options(options: argparse.Namespace, thoughts: TextConfig) -> Generator:
    """The model that the options name; `thoughts` says how those before a picture are written.

    Raises:
      CheckpointError, CheckpointMismatch, ConfigError: as of `load_reader`.
    """
    mesh = MeshConfig(**{axis: getattr(options, f"mesh_{axis}") for axis in _AXES})
    thinking = ThinkingConfig(options.drawing_prompt, options.answering_prompt, thoughts)
    return load_generator(options.checkpoint, ema=options.ema, dtype=options.dtype, mesh=mesh, thinking=thinking)


def add_picture_options(parser: Options) -> None:
    """One for each field of `PictureSettings` but `think`."""
    kinds = typing.get_type_hints(PictureSettings)
    for field in dataclasses.fields(PictureSettings):
        if field.name in _NOTES:
            kind = kinds[field.name]
            choices = typing.get_args(kind) if typing.get_origin(kind) is typing.Literal else None
            default = ",".join(map(str, field.default)) if isinstance(field.default, tuple) else field.default
            shown = f" (default {default})" if default not in ("", None) else ""
            parser.add_argument(
                f"--{field.name}",
                type=_reader(kind),
                default=field.default,
                choices=choices,
                metavar="LOW,HIGH" if field.name == "interval" else field.name.upper(),
                help=_NOTES[field.name] + shown,
            )


def picture_settings(options: argparse.Namespace, **changes: Any) -> PictureSettings:
    """The settings that the options give.

    Raises:
      ValueError: one is out of its range; the message names it.
    """
    given = {name: getattr(options, name) for name in _NOTES}
    return PictureSettings(**(given | changes))


def add_text_options(parser: Options, default: TextConfig, prefix: str = "") -> None:
    """Those that `text_config` reads: one for each field, after a prefix that tells which texts are meant."""
    for name, note in _TEXT_NOTES.items():
        value = getattr(default, name)
        kind, note = type(value), f"{note} (default {value})"
        parser.add_argument(f"--{prefix}{name}", type=kind, default=value, metavar=name.upper(), help=note)


def text_config(options: argparse.Namespace, prefix: str = "") -> TextConfig:
    """How texts are written by the options of that prefix.

    Raises:
      ValueError: one is out of its range; the message names it.
    """
    return TextConfig(**{name: getattr(options, prefix + name) for name in _TEXT_NOTES})


def add_thought_options(parser: argparse.ArgumentParser) -> None:
    """Those that `text_config` reads with the prefix `THOUGHTS`."""
    group = parser.add_argument_group("how thoughts before a picture are written")
    add_text_options(group, ThinkingConfig().text, THOUGHTS)


def _reader(kind: Any) -> Callable[[str], Any]:
    if kind in (int, float, str):
        return kind
    if kind == float | None:
        return float
    return _interval if typing.get_origin(kind) is tuple else str


def _interval(text: str) -> tuple[float, float]:
    try:
        low, high = (float(number) for number in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: expected two times, as 0.4,1") from error
    return low, high
