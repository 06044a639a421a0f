"""Checkpoints in and out: `python -m uno_jax.convert import|export|inspect|diff ...`; see docs/checkpoints.md."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import logging
from flax.traverse_util import flatten_dict
from rich.console import Console

from uno_jax.checkpoint_errors import CheckpointError
from uno_jax.config import ConfigError, to_json
from uno_jax.data.tokenizer import TOKENIZER_FILES
from uno_jax.interop.contents import open_contents, parts_table
from uno_jax.interop.exports import ExportConfig, export_public, rounded
from uno_jax.interop.imports import import_public
from uno_jax.interop.provenance import saved_provenance
from uno_jax.interop.public_json import not_public
from uno_jax.interop.sizes import model_config_from_directory
from uno_jax.load import public_settings, read_tokenizer, saved_model_config, saved_settings
from uno_jax.parallel.mesh import MeshConfig, make_mesh
from uno_jax.training.checkpoints import read_asset


def main(arguments: Sequence[str], console: Console | None = None) -> None:
    """Runs one of the commands, and says in one message what is wrong if something is."""
    options = _parser().parse_args(arguments)
    logging.set_verbosity(logging.WARNING)  # Orbax tells of every file
    try:
        options.run(options, console or Console(soft_wrap=True))
    except (ConfigError, CheckpointError, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m uno_jax.convert", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("import", help="public layout to a checkpoint of ours")
    command.add_argument("source", metavar="SRC", help="a directory in the public layout")
    _add_destination(command, "the checkpoint to make")
    for axis in ("data", "fsdp"):
        default = getattr(MeshConfig(), axis)
        note = f"devices along the mesh axis {axis} (default {default}; -1: those that are left)"
        command.add_argument(f"--mesh.{axis}", dest=axis, type=int, default=default, metavar="N", help=note)
    command.set_defaults(run=_import)

    command = commands.add_parser("export", help="a checkpoint of ours to the public layout")
    command.add_argument("source", metavar="SRC", help="a run's workdir, its checkpoints folder, or one checkpoint")
    _add_destination(command, "the directory to make")
    command.add_argument("--ema", action="store_true", help="averages in the place of the trained parameters")
    command.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        help="of the trained tensors; frozen ones keep theirs (default: that which they were imported in, or have)",
    )
    command.add_argument(
        "--shard_size", type=_bytes, metavar="SIZE", help="the most that a file holds, such as 5GB (default: one file)"
    )
    command.set_defaults(run=_export)
    return parser


def _add_destination(command: argparse.ArgumentParser, what: str) -> None:
    command.add_argument("destination", metavar="DST", help=what)
    command.add_argument("--overwrite", action="store_true", help="replace what is at DST")


def _bytes(text: str) -> int:
    """5GB, 500MiB, 1000."""
    units = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) *([a-zA-Z]*)", text)
    if not match or match[2].upper() not in units:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; give one like 5GB, 500MB or 2GiB")
    return int(float(match[1]) * units[match[2].upper()])


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


def _export(options: argparse.Namespace, console: Console) -> None:
    contents = open_contents(options.source, ema=options.ema)
    if contents.public:
        raise CheckpointError(f"{options.source}: it is in the public layout already")
    checkpoint = contents.where
    model, provenance = saved_model_config(checkpoint), saved_provenance(checkpoint)
    read_tokenizer(checkpoint / "assets", model)
    export_public(
        contents,
        options.destination,
        model,
        provenance,
        ExportConfig(options.dtype, options.shard_size),
        tokenizer={name: read_asset(checkpoint, name) for name in TOKENIZER_FILES},
        sampling=to_json(saved_settings(checkpoint)),
        overwrite=options.overwrite,
    )
    made = Path(options.destination)
    console.print(parts_table(f"Exported {contents.where}", open_contents(made).leaves))
    for file in sorted(made.iterdir()):
        console.print(f"{file.stat().st_size:>16,}  {file}", markup=False, highlight=False)
    for sentence in not_public(model):
        console.print(f"Not for the public implementation: {sentence}.", markup=False, highlight=False)
    if lost := rounded(contents, model, provenance):
        console.print(
            f"{len(lost)} frozen tensors are not what was imported: the run kept them in a narrower dtype "
            f"(config.frozen_dtype). The first is {lost[0]}.",
            markup=False,
            highlight=False,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
