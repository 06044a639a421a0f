"""Checkpoints in and out: `python -m uno_jax.convert import|export|inspect|diff ...`; see docs/checkpoints.md."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import logging
from flax.traverse_util import flatten_dict
from rich.console import Console

from uno_jax.config import ConfigError, to_json
from uno_jax.data.tokenizer import TOKENIZER_FILES
from uno_jax.interop.contents import parts_table
from uno_jax.interop.errors import CheckpointError
from uno_jax.interop.imports import import_public
from uno_jax.interop.sizes import model_config_from_directory
from uno_jax.load import public_settings, read_tokenizer
from uno_jax.parallel.mesh import MeshConfig, make_mesh
from uno_jax.training.checkpoints import CheckpointMismatch


def main(arguments: Sequence[str], console: Console | None = None) -> None:
    """Runs one of the commands, and says in one message what is wrong if something is."""
    options = _parser().parse_args(arguments)
    logging.set_verbosity(logging.WARNING)  # Orbax tells of every file
    try:
        options.run(options, console or Console(soft_wrap=True))
    except (ConfigError, CheckpointError, CheckpointMismatch, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m uno_jax.convert", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("import", help="public layout to a checkpoint of ours")
    command.add_argument("source", metavar="SRC", help="a directory in the public layout")
    command.add_argument("destination", metavar="DST", help="the checkpoint to make")
    command.add_argument("--overwrite", action="store_true", help="replace what is at DST")
    for axis in ("data", "fsdp"):
        default = getattr(MeshConfig(), axis)
        note = f"devices along the mesh axis {axis} (default {default}; -1: those that are left)"
        command.add_argument(f"--mesh.{axis}", dest=axis, type=int, default=default, metavar="N", help=note)
    command.set_defaults(run=_import)
    return parser


def _import(options: argparse.Namespace, console: Console) -> None:
    source = Path(options.source)
    model = model_config_from_directory(source)
    read_tokenizer(source, model)
    settings = public_settings(source, model)
    imported = import_public(
        source,
        options.destination,
        make_mesh(MeshConfig(options.data, options.fsdp)),
        tokenizer={name: (source / name).read_bytes() for name in TOKENIZER_FILES},
        settings={
            "data": {name: to_json(getattr(settings, name)) for name in ("vae_transform", "vit_transform")},
            "objective": {"time_shift": settings.time_shift},
        },
        overwrite=options.overwrite,
    )
    leaves = flatten_dict({**imported.params, "autoencoder": imported.autoencoder_params}, sep="/")
    console.print(parts_table(f"Imported {source}", leaves))
    console.print(f"checkpoint: {options.destination}", markup=False, highlight=False)


if __name__ == "__main__":
    main(sys.argv[1:])
