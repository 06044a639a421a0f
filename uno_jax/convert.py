"""Checkpoints in and out: `python -m uno_jax.convert import|export|inspect|diff ...`; see docs/checkpoints.md."""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from logging import CRITICAL, getLogger
from pathlib import Path

import jax
from absl import logging
from flax.traverse_util import flatten_dict
from rich.console import Console

from uno_jax.config import ConfigError, to_json
from uno_jax.data.tokenizer_files import TOKENIZER_FILES
from uno_jax.interop.compare import compare, comparison_table, config_differences, differing_table
from uno_jax.interop.exports import ExportConfig, export_public, rounded
from uno_jax.interop.imports import import_public
from uno_jax.interop.merge import without_adapters
from uno_jax.interop.public_json import not_public, public_code_fields
from uno_jax.interop.source import OrbaxCheckpoint, PublicDirectory, find_source, read_tokenizer
from uno_jax.interop.summary import arrays_table, facts, flat_config, parts_table, read_parts
from uno_jax.parallel.axes import MESH_AXES
from uno_jax.parallel.hosts import failing_together, join_hosts
from uno_jax.parallel.mesh import MeshConfig, make_mesh
from uno_jax.process.errors import CheckpointError
from uno_jax.process.signals import exit_on_signals
from uno_jax.training.checkpoints import read_asset


def main(arguments: Sequence[str], console: Console | None = None) -> None:
    """Runs one of the commands, and says in one message what is wrong if something is.

    Raises:
      SystemExit: something is wrong (status 1; of `diff` 2), or `diff` has found a difference (1).
    """
    options = _parser().parse_args(arguments)
    logging.set_verbosity(logging.FATAL)  # Orbax tells of every file, and logs what it raises
    # When a write fails, Orbax leaves others that it had not begun.
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    with exit_on_signals(), _one_message(options.failure):
        succeeded = options.run(options, console or _console())
    if not succeeded:
        sys.exit(1)


@contextlib.contextmanager
def _one_message(status: int = 1) -> Iterator[None]:
    try:
        yield
    except (ConfigError, CheckpointError, OSError) as error:
        message = f"{type(error).__name__}: {error}"
        if status == 1:
            sys.exit(message)
        print(message, file=sys.stderr)
        sys.exit(status)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m uno_jax.convert", description=__doc__)
    parser.set_defaults(failure=1)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("import", help="public layout to a checkpoint of ours")
    command.add_argument("source", metavar="SRC", help="a directory in the public layout")
    _add_destination(command, "the checkpoint to make")
    for axis in MESH_AXES:
        default = getattr(MeshConfig(), axis)
        note = f"devices along the mesh axis {axis} (default {default}; -1: those that are left)"
        command.add_argument(f"--mesh.{axis}", dest=axis, type=int, default=default, metavar="N", help=note)
    command.add_argument("--coordinator", metavar="HOST:PORT", help="of process 0, where hosts do not find each other")
    command.add_argument("--processes", type=int, metavar="N", help="with --coordinator: how many there are")
    command.add_argument("--process", type=int, metavar="I", help="with --coordinator: which this is, from 0")
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

    command = commands.add_parser("inspect", help="what is in a checkpoint, ours or one in the public layout")
    command.add_argument("source", metavar="SRC", help=_ANY)
    command.add_argument("--ema", action="store_true", help="averages in the place of the trained parameters")
    command.add_argument("--arrays", action="store_true", help="also list every array")
    command.add_argument("--skip_hash", action="store_true", help="no hashes: no parameter is read")
    command.set_defaults(run=_inspect)

    command = commands.add_parser("diff", help="which parts of two checkpoints differ, and by how much")
    command.add_argument("first", metavar="FIRST", help=_ANY)
    command.add_argument("second", metavar="SECOND", help="another one; the exit status is 1 if their arrays differ")
    command.add_argument("--ema", choices=("first", "second", "both"), default="", help="of which to take averages")
    command.add_argument("--arrays", action="store_true", help="also list every array that differs")
    command.set_defaults(run=_diff, failure=2)
    return parser


_ANY = "a run's workdir, its checkpoints folder, one checkpoint, or a directory in the public layout"


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


def _import(options: argparse.Namespace, console: Console) -> bool:
    join_hosts(options.coordinator, options.processes, options.process)
    with failing_together(), _one_message():
        _import_here(options, console)
    return True


def _import_here(options: argparse.Namespace, console: Console) -> None:
    """This host's part of an import."""
    source = find_source(options.source)
    if not isinstance(source, PublicDirectory):
        raise CheckpointError(
            f"{source.path}: it is a checkpoint of ours already; give a directory in the public layout"
        )
    model, tokenizer, settings = source.model(), source.tokenizer(), source.settings()
    imported = import_public(
        source.path,
        options.destination,
        make_mesh(MeshConfig(**{axis: getattr(options, axis) for axis in MESH_AXES})),
        tokenizer={name: (source.path / name).read_bytes() for name in TOKENIZER_FILES},
        settings={
            "data": {name: to_json(getattr(settings, name)) for name in ("vae_transform", "vit_transform")},
            "objective": {"time_shift": settings.time_shift},
        },
        overwrite=options.overwrite,
    )
    if jax.process_index() == 0:
        console.print(
            parts_table(flatten_dict({**imported.params, "autoencoder": imported.autoencoder_params}, sep="/"))
        )
        _print(console, f"tokenizer: {len(tokenizer)} ids, of a vocabulary of {model.decoder.vocab_size}")
        _print(console, f"imported {source.path} as the checkpoint {options.destination}")


def _export(options: argparse.Namespace, console: Console) -> bool:
    source = find_source(options.source)
    if not isinstance(source, OrbaxCheckpoint):
        raise CheckpointError(f"{source.path}: it is in the public layout already; give a checkpoint of ours")
    saved = source.model()
    read_tokenizer(source.tokenizer_directory, saved, listed=True)
    contents, model, provenance = without_adapters(source.contents(ema=options.ema), saved, source.provenance())
    export_public(
        contents,
        options.destination,
        model,
        provenance,
        ExportConfig(options.dtype, options.shard_size),
        tokenizer={name: read_asset(source.path, name) for name in TOKENIZER_FILES},
        sampling=to_json(source.settings()),
        overwrite=options.overwrite,
    )
    made = Path(options.destination)
    console.print(parts_table(PublicDirectory(made).contents().leaves))
    _print(console, f"exported {_shown(contents.where)}{', averages' if options.ema else ''}, to")
    for file in sorted(made.iterdir()):
        _print(console, f"{file.stat().st_size:>16,}  {file}")
    if saved.decoder.adapter_rank:
        _print(console, f"The low-rank adapters, of rank {saved.decoder.adapter_rank}, are added to the kernels.")
    for sentence in not_public(model):
        _print(console, f"Not for the public implementation: {sentence}.")
    if (fields := public_code_fields(model)) and not not_public(model):
        listed = ", ".join(f"{name} {ours} (published: {theirs})" for name, (ours, theirs) in fields.items())
        _print(console, f"The public implementation reads these from no file, give them in its code: {listed}.")
    if lost := rounded(contents, model, provenance):
        _print(
            console,
            f"{len(lost)} frozen tensors are not what was imported: the run kept them in a narrower dtype "
            f"(config.frozen_dtype). The first is {lost[0]}.",
        )
    return True


def _inspect(options: argparse.Namespace, console: Console) -> bool:
    source = find_source(options.source)
    contents = source.contents(ema=options.ema)
    read = None if options.skip_hash else read_parts(contents)
    console.print(parts_table(contents.leaves, read))
    for name in read.not_finite if read else ():
        _print(console, f"not finite: {name}")
    _print(console, f"checkpoint: {_shown(contents.where)}{', averages' if options.ema else ''}")
    for name, value in facts(contents):
        _print(console, f"{name}: {value}")
    if not contents.public:
        provenance = source.provenance()
        _print(console, f"trained: {', '.join(map(_prefix, provenance.trained)) or 'nothing'}")
        _print(console, f"imported: {_counted(provenance.dtypes.values()) or 'nothing'}")
    for name, text in flat_config(contents.config).items():
        _print(console, f"  {name} = {text}")
    if options.arrays:
        console.print(arrays_table(contents.leaves))
    return True


def _diff(options: argparse.Namespace, console: Console) -> bool:
    first = find_source(options.first).contents(ema=options.ema in ("first", "both"))
    second = find_source(options.second).contents(ema=options.ema in ("second", "both"))
    comparison = compare(first, second)
    for which, contents in (("first", first), ("second", second)):
        averages = ", averages" if options.ema in (which, "both") else ""
        _print(console, f"{which}: {_shown(contents.where)}{averages}")
    console.print(comparison_table(comparison))
    for array in comparison.arrays:
        if array.not_finite:
            _print(console, f"{array.name} is not finite in the {' and the '.join(array.not_finite)}")
    for line in comparison.others:
        _print(console, line)
    if options.arrays and not comparison.same:
        console.print(differing_table(comparison))
    if first.public == second.public:
        for line in config_differences(flat_config(first.config), flat_config(second.config)):
            _print(console, f"  {line}")
    return comparison.same


def _prefix(trained: str) -> str:
    return trained or "everything"


def _counted(dtypes: Iterable[str]) -> str:
    """3 tensors in F32, 5 in BF16."""
    return ", ".join(f"{count} tensors in {dtype}" for dtype, count in sorted(Counter(dtypes).items()))


def _shown(path: Path) -> Path:
    """Relative to where the command runs, if it is below."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _console() -> Console:
    """The terminal's; where there is none, wide enough for our tables."""
    return Console(soft_wrap=True) if sys.stdout.isatty() else Console(soft_wrap=True, width=120)


def _print(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _silence_echoes() -> None:
    """Where one array cannot be written, all that are in flight would say so too: in the log, and as unraisable."""
    getLogger("asyncio").setLevel(CRITICAL)
    sys.unraisablehook = lambda unraisable: None


if __name__ == "__main__":
    _silence_echoes()
    main(sys.argv[1:])
