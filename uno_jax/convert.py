"""Converts and compares checkpoints: `python -m uno_jax.convert import|export|inspect|diff` (docs/checkpoints.md)."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
from absl import flags
from flax.traverse_util import flatten_dict
from rich.console import Console

from uno_jax.config import to_json
from uno_jax.data.tokenizer_files import TOKENIZER_FILES
from uno_jax.interop.compare import compare, comparison_table, config_differences, differing_table
from uno_jax.interop.exports import ExportConfig, export_public, rounded
from uno_jax.interop.imports import import_public
from uno_jax.interop.merge import without_adapters
from uno_jax.interop.public_files import is_public_directory
from uno_jax.interop.public_json import not_public, public_code_fields
from uno_jax.interop.source import OrbaxCheckpoint, PublicDirectory, find_source, read_tokenizer
from uno_jax.interop.summary import arrays_table, facts, flat_config, parts_table, read_parts
from uno_jax.parallel.flags import define_hosts, define_mesh, joined_hosts, mesh_config
from uno_jax.parallel.mesh import make_mesh
from uno_jax.process.errors import CheckpointError, exit_with_message
from uno_jax.process.files import check_folder, is_empty
from uno_jax.process.flags import ValueParser, choose_command, parse_flags, section_of
from uno_jax.process.logs import hide_orbax
from uno_jax.process.paths import local_path
from uno_jax.process.signals import exit_on_signals
from uno_jax.training.checkpoint_folders import find_checkpoint, read_asset


class Command(NamedTuple):
    """A subcommand."""

    run: Callable[[flags.FlagValues, Sequence[str], Console], bool]
    """Returns whether it succeeded; `diff` succeeds if nothing differs."""
    define: Callable[[flags.FlagValues], None]
    about: str
    positional: tuple[str, ...]
    failure: int = 1
    """Exit status of an error."""


def main(arguments: Sequence[str], console: Console | None = None) -> None:
    """Runs a subcommand, and reports an error in one message.

    Raises:
      SystemExit: with status 1 for an error, or if `diff` finds a difference. With status 2 for an error of `diff` or
        of the command line.
    """
    name, command = choose_command("convert", _COMMANDS, arguments, __doc__)
    options = flags.FlagValues()
    command.define(options)
    paths = parse_flags(
        options, arguments[1:], command=f"convert {name}", about=command.about, positional=command.positional
    )
    hide_orbax()
    with exit_on_signals(), exit_with_message(command.failure):
        succeeded = command.run(options, _local(paths), console or _console())
    if not succeeded:
        sys.exit(1)


def _local(paths: Sequence[str]) -> list[str]:
    try:
        return [local_path(path) for path in paths]
    except ValueError as error:
        raise CheckpointError(str(error)) from error


_FLAGS = "flags"  # section title in --help


def _define_import(options: flags.FlagValues) -> None:
    _define_overwrite(options)
    define_mesh(options, "devices")
    define_hosts(options)


def _define_export(options: flags.FlagValues) -> None:
    _define_overwrite(options)
    _define_ema(options)
    note = "dtype of the trained tensors; default: that of the import, or the saved one. Frozen tensors keep theirs"
    flags.DEFINE_enum("dtype", None, ["float32", "bfloat16", "float16"], note, **section_of(options, _FLAGS))
    note = "maximum size of a shard, such as 5GB; default: a single file"
    flags.DEFINE(ValueParser(_bytes), "shard_size", None, note, **section_of(options, _FLAGS))


def _define_inspect(options: flags.FlagValues) -> None:
    _define_ema(options)
    flags.DEFINE_boolean("arrays", False, "also list every array", **section_of(options, _FLAGS))
    flags.DEFINE_boolean("skip_hash", False, "skip the hashes, and read no parameters", **section_of(options, _FLAGS))


def _define_diff(options: flags.FlagValues) -> None:
    flags.DEFINE_enum(
        "ema",
        None,
        ["first", "second", "both"],
        "checkpoints whose EMA weights are compared",
        **section_of(options, _FLAGS),
    )
    flags.DEFINE_boolean("arrays", False, "also list every array that differs", **section_of(options, _FLAGS))


def _define_overwrite(options: flags.FlagValues) -> None:
    flags.DEFINE_boolean("overwrite", False, "replace an existing DST", **section_of(options, _FLAGS))


def _define_ema(options: flags.FlagValues) -> None:
    flags.DEFINE_boolean("ema", False, "use the EMA of the trained parameters", **section_of(options, _FLAGS))


def _bytes(text: str) -> int:
    """Parses a size such as 5GB, 500MiB or 1000."""
    units = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) *([a-zA-Z]*)", text)
    if not match or match[2].upper() not in units:
        raise ValueError(f"{text!r} is not a size: expected a value such as 5GB, 500MB or 2GiB")
    size = int(float(match[1]) * units[match[2].upper()])
    if size < 1:  # 0 would mean a single file
        raise ValueError(f"{text!r}: expected at least one byte")
    return size


def _check_replaced(destination: str, *, overwrite: bool) -> None:
    """Requires that `--overwrite` replaces a checkpoint, or an empty folder, and nothing else.

    Raises:
      CheckpointError: something else is at the destination.
      UserError: nothing can be written there.
    """
    path = Path(destination)
    check_folder(path.absolute().parent)
    if not overwrite or not path.exists() or (path.is_dir() and is_empty(path)):
        return
    if not path.is_dir() or (find_checkpoint(path) is None and not is_public_directory(path)):
        raise CheckpointError(f"{path} is not a checkpoint, and --overwrite replaces only those; choose another path")


def _import(options: flags.FlagValues, paths: Sequence[str], console: Console) -> bool:
    with joined_hosts(options):
        _import_here(options, paths[0], paths[1], console)
    return True


def _import_here(options: flags.FlagValues, source_path: str, destination: str, console: Console) -> None:
    """Runs this host's part of an import."""
    _check_replaced(destination, overwrite=options.overwrite)
    source = find_source(source_path)
    if not isinstance(source, PublicDirectory):
        raise CheckpointError(
            f"{source.path} is already an Orbax checkpoint; expected a directory in the public layout"
        )
    model, tokenizer, settings = source.model(), source.tokenizer(), source.settings()
    imported = import_public(
        source.path,
        destination,
        make_mesh(mesh_config(options)),
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
        _print(console, f"tokenizer: {tokenizer.summary}, vocabulary of {model.decoder.vocab_size}")
        _print(console, f"imported {source.path} to {destination}")


def _export(options: flags.FlagValues, paths: Sequence[str], console: Console) -> bool:
    source_path, destination = paths
    _check_replaced(destination, overwrite=options.overwrite)
    source = find_source(source_path)
    if not isinstance(source, OrbaxCheckpoint):
        raise CheckpointError(f"{source.path} is already in the public layout; expected an Orbax checkpoint")
    saved = source.model()
    read_tokenizer(source.tokenizer_directory, saved)
    contents, model, provenance = without_adapters(source.contents(ema=options.ema), saved, source.provenance())
    export_public(
        contents,
        destination,
        model,
        provenance,
        ExportConfig(options.dtype, options.shard_size),
        tokenizer={name: read_asset(source.path, name) for name in TOKENIZER_FILES},
        sampling=to_json(source.settings()),
        overwrite=options.overwrite,
    )
    made = Path(destination)
    console.print(parts_table(PublicDirectory(made).contents().leaves))
    _print(console, f"exported {_shown(contents.where)}{' (EMA)' if options.ema else ''} to")
    for file in sorted(made.iterdir()):
        _print(console, f"{file.stat().st_size:>16,}  {file}")
    if saved.decoder.adapter_rank:
        _print(
            console, f"The low-rank adapters of rank {saved.decoder.adapter_rank} have been merged into the kernels."
        )
    for sentence in not_public(model):
        _print(console, f"Not supported by the public implementation: {sentence}.")
    if (fields := public_code_fields(model)) and not not_public(model):
        listed = ", ".join(f"{name} {ours} (published: {theirs})" for name, (ours, theirs) in fields.items())
        _print(console, f"Constants to change in the code of the public implementation: {listed}.")
    if lost := rounded(contents, model, provenance):
        _print(
            console,
            f"{len(lost)} frozen tensors differ from the import, because the run stored them in a narrower dtype "
            f"(config.frozen_dtype). The first is {lost[0]}.",
        )
    return True


def _inspect(options: flags.FlagValues, paths: Sequence[str], console: Console) -> bool:
    [path] = paths
    source = find_source(path)
    contents = source.contents(ema=options.ema)
    read = None if options.skip_hash else read_parts(contents)
    console.print(parts_table(contents.leaves, read))
    for name in read.not_finite if read else ():
        _print(console, f"not finite: {name}")
    _print(console, f"checkpoint: {_shown(contents.where)}{' (EMA)' if options.ema else ''}")
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


def _diff(options: flags.FlagValues, paths: Sequence[str], console: Console) -> bool:
    first = find_source(paths[0]).contents(ema=options.ema in ("first", "both"))
    second = find_source(paths[1]).contents(ema=options.ema in ("second", "both"))
    comparison = compare(first, second)
    for which, contents in (("first", first), ("second", second)):
        ema = " (EMA)" if options.ema in (which, "both") else ""
        _print(console, f"{which}: {_shown(contents.where)}{ema}")
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
    """Counts dtypes, such as "3 tensors in BF16, 5 tensors in F32"."""
    return ", ".join(f"{count} tensors in {dtype}" for dtype, count in sorted(Counter(dtypes).items()))


def _shown(path: Path) -> Path:
    """Returns the path relative to the current folder if it is below it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _console() -> Console:
    """Returns the console of the terminal, or without a terminal one that is wide enough for the tables."""
    return Console(soft_wrap=True) if sys.stdout.isatty() else Console(soft_wrap=True, width=120)


def _print(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


_ANY = "the workdir of a run, its checkpoints folder, one checkpoint, or a directory in the public layout"
_COMMANDS = {
    "import": Command(
        _import,
        _define_import,
        "Imports SRC, a directory in the public layout, to DST, an Orbax checkpoint.",
        ("SRC", "DST"),
    ),
    "export": Command(
        _export,
        _define_export,
        "Exports SRC, the workdir of a run, its checkpoints folder, or one checkpoint, to DST, a directory in the "
        "public layout.",
        ("SRC", "DST"),
    ),
    "inspect": Command(_inspect, _define_inspect, f"Shows the contents of SRC: {_ANY}.", ("SRC",)),
    "diff": Command(
        _diff,
        _define_diff,
        f"Compares FIRST and SECOND part by part; the exit status is 1 if any arrays differ. Each is {_ANY}.",
        ("FIRST", "SECOND"),
        failure=2,
    ),
}


if __name__ == "__main__":
    main(sys.argv[1:])
