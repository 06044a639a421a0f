"""Prepares a dataset: `python -m uno_jax.prepare_data --dataset=openmoji --out=DIR`; see docs/data.md.

`prepare_data encode` and `prepare_data recaption` add to a prepared dataset what a model computes of it;
`prepare_data validate` checks one as a run would read it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import flags, logging
from etils import epath
from rich.console import Console
from rich.table import Table

from uno_jax.batch import TASKS
from uno_jax.data.conversion import dataset_files
from uno_jax.data.conversion.beam_runner import BeamRunner, import_beam
from uno_jax.data.conversion.before import MANIFEST, Before, read_before
from uno_jax.data.conversion.convert import ProcessRunner, Runner, convert_source, fetch_shards, write_shards
from uno_jax.data.conversion.dataset_files import LEFT_OUT, REJECTED
from uno_jax.data.conversion.ledger import ALREADY_THERE, Ledger, by_cause
from uno_jax.data.conversion.parts import RECORDS_PER_PART
from uno_jax.data.conversion.progress import ProgressReporter, progress_of
from uno_jax.data.conversion.shards import shards_of
from uno_jax.data.record import Record
from uno_jax.data.records import open_records, record_tasks
from uno_jax.data.sources.locations import location
from uno_jax.data.sources.source import DataSource, DataSourceError, Values
from uno_jax.data.storage import DatasetInfo
from uno_jax.data.tokenizer import Tokenizer, check_vocab_size, train_tokenizer
from uno_jax.data.tokenizer_files import TOKENIZER_FILES
from uno_jax.process.errors import UserError, exit_with_message
from uno_jax.process.files import is_empty, write_json
from uno_jax.process.flags import choose_command, define_path, define_typed, field_values, parse_flags, section_of
from uno_jax.process.json_reader import read_json_object
from uno_jax.process.pool import core_count
from uno_jax.process.signals import exit_on_signals
from uno_jax.process.work_folder import Work, forget, recover, work_on
from uno_jax.sheets.records import make_contact_sheet

try:
    from uno_jax.data.sources.registry import SOURCES, all_options
except ImportError as error:
    sys.exit(f"prepare_data needs {error.name}. Install the extra `data`: pip install '.[data]' (docs/install.md)")

FORMAT = 2  # version of the directory's format; datasets of another version count as different
_PICTURES_SHOWN = {"text_to_image": 20, "editing": 20, "understanding": 10}


class PrepareError(UserError):
    """The request or the data are invalid. The message says what to do."""


@dataclass(frozen=True)
class Beam:
    """Options of Apache Beam."""

    flags: tuple[str, ...] = ()
    folder: epath.Path | None = None
    """A folder that all workers and this machine reach; None: the folder of the unfinished dataset."""

    def place(self, begun: Mapping[str, object]) -> epath.Path | None:
        """Returns the folder of the work that began with some parameters, if it is not that of the dataset."""
        name = hashlib.sha256(json.dumps(begun, sort_keys=True).encode()).hexdigest()[:16]
        return self.folder / name if self.folder else None


@dataclass(frozen=True)
class Request:
    """Options of one invocation."""

    source: DataSource
    values: Values
    """The value of each option of the source."""
    out: Path
    """The dataset directory to write."""
    tokenizer: Path | None = None
    """A tokenizer directory to copy; None = train a tokenizer."""
    vocab_size: int = 2048
    strict: bool = False
    """Whether to fail if any record is rejected."""
    max_rejected: float = 0.5
    """Fraction of the records that may be rejected."""
    overwrite: bool = False
    append: bool = False
    """Whether to add what a dataset does not have."""
    processes: int = 0
    """Number of processes that decode and write; 0 = the number of cores. The dataset does not depend on it."""
    beam: Beam | None = None
    """Runs pipelines of Apache Beam instead of processes."""
    records_per_part: int = RECORDS_PER_PART
    """Number of rows that a process converts at a time, and that are converted again after a kill."""


_SUBCOMMANDS = {
    "encode": "uno_jax.enrich.encode_command",
    "recaption": "uno_jax.enrich.recaption_command",
    "validate": "uno_jax.run.validate_command",
}
"""Commands for a prepared dataset, and their modules, which import all of JAX."""


def main(arguments: Sequence[str]) -> None:
    """Prepares the dataset that the command line asks for, or runs a subcommand.

    Raises:
      SystemExit: the command line or the data are invalid. One message says what is wrong.
    """
    if arguments and arguments[0] in _SUBCOMMANDS:
        importlib.import_module(_SUBCOMMANDS[arguments[0]]).main(arguments[1:])
        return
    if arguments and not arguments[0].startswith("-"):
        choose_command("prepare_data [--out=..]", _SUBCOMMANDS, arguments, __doc__)  # which ends with what is known
    options = flags.FlagValues()
    _define(options)
    parse_flags(options, arguments, command="prepare_data", about=__doc__, required=("out",))
    logging.set_verbosity(logging.WARNING)
    with exit_on_signals(), exit_with_message():
        prepare(_request(options), Console(soft_wrap=True, emoji=False))  # `:100:` is a line number, not an emoji


def _define(options: flags.FlagValues) -> None:
    place = section_of(options, "dataset")
    summaries = "; ".join(f"{name}: {source.summary}" for name, source in SOURCES.items())
    flags.DEFINE_enum("dataset", "openmoji", list(SOURCES), f"data source: {summaries}", **place)
    define_path(options, "out", None, "dataset directory to write", "dataset")
    note = "tokenizer directory (Qwen2 format) to copy instead of training one"
    define_path(options, "tokenizer", None, note, "dataset")
    flags.DEFINE_integer("vocab_size", 2048, "vocabulary size of the trained tokenizer", **place)
    flags.DEFINE_boolean("strict", False, "write nothing if any record is rejected", **place)
    note = "fraction of the records that may be rejected"
    flags.DEFINE_float("max_rejected", Request.max_rejected, note, lower_bound=0.0, upper_bound=1.0, **place)
    flags.DEFINE_boolean("overwrite", False, "replace a different dataset at --out", **place)
    flags.DEFINE_boolean("append", False, "add records to the dataset at --out, except those whose id it has", **place)
    note = "what converts: processes of this machine, or pipelines of Apache Beam"
    flags.DEFINE_enum("runner", "processes", ["processes", "beam"], note, **place)
    flags.DEFINE_string("beam_flags", "", "flags of Beam, such as '--runner=DataflowRunner --project=..'", **place)
    note = "folder that all workers of Beam and this machine reach, such as gs://bucket/folder"
    define_typed(options, "beam_folder", str, "", note, "dataset")  # a path or gs://, see `location`
    note = "processes that decode and write; 0 = all cores"
    flags.DEFINE_integer("processes", 0, note, lower_bound=0, upper_bound=1024, **place)
    note = "rows that a process converts at a time, and that are converted again after a kill"
    flags.DEFINE_integer("records_per_part", RECORDS_PER_PART, note, lower_bound=1, **place)
    for option, sources in all_options(SOURCES.values()).values():
        define_typed(
            options,
            option.name,
            option.type,
            option.default,
            option.help,
            ", ".join(sources),
            minimum=option.minimum,
            maximum=option.maximum,
        )


def _request(options: flags.FlagValues) -> Request:
    source = SOURCES[options.dataset]
    own = [option.name for option in source.options]
    others = {
        name: sources
        for name, (_, sources) in all_options(SOURCES.values()).items()
        if name not in own and options[name].present
    }
    if others:
        [first, *_] = others.values()
        names = " and ".join(f"--{name}" for name in others)
        raise PrepareError(f"{names}: not for --dataset={source.name}. Give --dataset={' or '.join(first)}.")
    if options.append and (options.overwrite or options.tokenizer or options["vocab_size"].present):
        raise PrepareError(
            "--append: the dataset keeps its records and its tokenizer. Omit --overwrite, --tokenizer and --vocab_size."
        )
    return Request(
        source,
        field_values(options, own),
        Path(options.out),
        Path(options.tokenizer) if options.tokenizer else None,
        options.vocab_size,
        options.strict,
        options.max_rejected,
        options.overwrite,
        options.append,
        options.processes,
        _beam(options),
        options.records_per_part,
    )


def _beam(options: flags.FlagValues) -> Beam | None:
    if options.runner == "beam":
        import_beam()
        folder = location("beam_folder", options.beam_folder) if options.beam_folder else None
        return Beam(tuple(shlex.split(options.beam_flags)), folder)
    if options.beam_flags or options.beam_folder:
        raise PrepareError("--beam_flags and --beam_folder: only for --runner=beam.")
    return None


class _NothingToAdd(Exception):
    """No record of a source is missing in a dataset."""


def prepare(request: Request, console: Console) -> None:
    """Writes the requested dataset completely or not at all. Does nothing if it already exists.

    A command that was killed or interrupted goes on where it stopped.

    Raises:
      PrepareError: `request.out` holds something else, or the records or the tokenizer are invalid.
      WorkError: a different command began the dataset and was not finished.
      DataSourceError: the source cannot be read.
    """
    tfds.disable_progress_bar()  # ours is shown instead
    out, parameters = request.out, _parameters(request)
    recover(out)
    if out.exists() and not out.is_dir():
        raise PrepareError(f"{out} is a file, not a folder. Give another --out.")
    existing = _read_manifest(out) if out.is_dir() else None
    same = existing is not None and parameters in (existing["parameters"], *existing.get("appended", ()))
    damaged = dataset_files.damaged_file(out, existing.get("files", {})) if existing is not None else None
    if damaged and (same or request.append) and not request.overwrite:
        raise PrepareError(
            f"{out / damaged} is missing, or not as it was written. Copy the dataset again, or prepare it again with "
            "--overwrite."
        )
    if same and not damaged:
        forget(out, parameters)
        console.print(f"{out} already holds this dataset: nothing to do.", markup=False, highlight=False)
        _print_summary(console, out)
        return
    _check_out(request, existing)
    before = read_before(out) if request.append else Before()
    try:
        begun = parameters | {"records_per_part": request.records_per_part, "appended_to": before.identity()}
        with work_on(out, begun) as work:
            _make(work, request, begun, parameters, before, console)
    except _NothingToAdd:
        forget(out)
        console.print(f"{out} already holds all of these records: nothing to do.", markup=False, highlight=False)
        return
    except (PrepareError, DataSourceError):  # nothing that was done is of use
        forget(out)
        raise
    _print_summary(console, out)


def _check_out(request: Request, existing: Any) -> None:
    """Refuses to write where something else is."""
    out = request.out
    if request.append:
        if existing is None:
            raise PrepareError(f"--append: {out} is no dataset. Give the dataset to append to, or omit --append.")
        if existing["format"] != FORMAT:
            raise PrepareError(f"--append: {out} was prepared by another version. Prepare it again, with --overwrite.")
        return
    if not out.is_dir() or is_empty(out):
        return
    if not request.overwrite:
        if existing is None:
            raise PrepareError(f"{out} is not empty and not a dataset. Give another --out.")
        raise PrepareError(
            f"{out} holds a dataset made with other parameters. Give another --out, --overwrite to replace it, or "
            "--append to add what it does not have."
        )
    if existing is None:
        raise PrepareError(
            f"{out} is not empty and not a dataset, and --overwrite replaces only datasets. Give another --out."
        )


def _make(
    work: Work,
    request: Request,
    begun: Mapping[str, object],
    parameters: dict[str, object],
    before: Before,
    console: Console,
) -> None:
    """Makes the dataset in `work.made`."""
    source, made = request.source, work.made
    place = request.beam.place(begun) if request.beam else None
    parts, there = (place / "parts", place / "shards") if place else (work.folder / "parts", made)
    processes = request.processes or core_count()
    runner: Runner = ProcessRunner(processes) if request.beam is None else BeamRunner(request.beam.flags)
    with progress_of(console) as progress:
        reporter = ProgressReporter(progress)
        opened = source.open(request.values, reporter)
        ledger = Ledger(reporter.reject, {split: before.ids(split) for split in before.splits})
        on_items = reporter.advance("Converting records", opened.total)
        convert_source(opened, parts, ledger, on_items, runner, request.records_per_part)
        reporter.summarise(ledger)
        _check(ledger, request)
        info = before.info or DatasetInfo(source.name, opened.description, opened.license, opened.homepage, {})
        if opened.license not in info.license:
            info = dataclasses.replace(info, license=f"{info.license}\n{opened.license}")
        splits = [split for split in ("train", *ledger.stored) if split in ledger.stored]
        shards = {split: shards_of(ledger.stored[split], before.shards(split)) for split in dict.fromkeys(splits)}
        on_records = reporter.advance("Writing shards", ledger.accepted)
        write_shards(there, info.name, shards, parts, on_records, runner)
        if there != made:
            fetch_shards(there, made)
        before.keep(made, dataset_files.rewritten(shards))
        dataset_files.write_split_files(made, info, shards, before)
        for name, entries in ((REJECTED, ledger.rejections), (LEFT_OUT, ledger.left_out)):
            dataset_files.write_list(made / name, before.file(name), entries)
        tokenizer = _tokenizer(made / "tokenizer", ledger, request)
        _write_contact_sheet(made)
    manifest = dataset_files.manifest_of(ledger, lambda text: len(tokenizer.encode(text)))
    if before.manifest:
        manifest = dataset_files.added(before.manifest, manifest)
        own = {"parameters": before.manifest["parameters"], "appended": [*before.manifest["appended"], parameters]}
    else:
        own = {"parameters": parameters, "appended": []}
    counts = dataset_files.task_counts(made, dict.fromkeys((*before.splits, *shards)))
    files = dataset_files.file_table(made, before.known_files(), processes)
    write_json(made / MANIFEST, {"format": FORMAT, **own, "records": counts, **manifest, "files": files})
    if place:
        place.rmtree(missing_ok=True)


def _check(ledger: Ledger, request: Request) -> None:
    """Raises PrepareError if there is no training record or none to add, or more were rejected than is allowed."""
    if request.strict and ledger.rejected:
        raise PrepareError("records were rejected, which --strict does not allow. Correct them, or omit --strict.")
    share = ledger.rejected / max(ledger.rejected + ledger.accepted, 1)
    if ledger.accepted and share > request.max_rejected:
        raise PrepareError(
            f"{share:.0%} of the records were rejected, more than --max_rejected={request.max_rejected:g} allows. "
            "Correct them, or raise it."
        )
    if not (ledger.accepted or ledger.rejected or ledger.left_out):
        raise PrepareError("the source holds no records. Give another one.")
    if request.append and not ledger.accepted:
        if not ledger.rejected and set(by_cause(ledger.left_out)) == {ALREADY_THERE}:
            raise _NothingToAdd
        raise PrepareError("no record can be added. Correct the rejected ones, or leave out fewer.")
    if not request.append and not ledger.stored.get("train"):
        raise PrepareError("no training records. Correct the rejected ones, leave out fewer, or lower --test_fraction.")


def _parameters(request: Request) -> dict[str, object]:
    """Returns everything that determines the contents of the dataset. Equal parameters give equal datasets."""
    source = request.source
    parameters: dict[str, object] = {"format": FORMAT, "dataset": source.name}
    if request.append:
        pass  # the dataset has a tokenizer
    elif request.tokenizer:
        files = [request.tokenizer / name for name in TOKENIZER_FILES]
        missing = [str(path) for path in files if not path.is_file()]
        if missing:
            raise PrepareError(f"--tokenizer: {', '.join(missing)} not found. Give a directory in the Qwen2 format.")
        Tokenizer.from_directory(request.tokenizer)  # raises an error if the files do not belong together
        parameters["tokenizer"] = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
    else:
        check_vocab_size(request.vocab_size)
        parameters["vocab_size"] = request.vocab_size
    for option in source.options:
        if option.required and not request.values[option.name]:
            raise PrepareError(f"--dataset={source.name} requires --{option.name}. See docs/data.md.")
    return parameters | source.identity(request.values)


def _tokenizer(directory: Path, ledger: Ledger, request: Request) -> Tokenizer:
    """Returns the tokenizer of the dataset: the one that it has, a copy of another one, or one that is trained."""
    if request.append:
        return Tokenizer.from_directory(directory)
    if request.tokenizer is None:
        texts = dataset_files.texts_of(ledger.facts["train"])
        once = list(dict.fromkeys(texts)) if request.source.count_texts_once else texts
        return train_tokenizer(once, request.vocab_size, directory)
    directory.mkdir(exist_ok=True)
    for name in TOKENIZER_FILES:
        shutil.copyfile(request.tokenizer / name, directory / name)
    return Tokenizer.from_directory(directory)


def _write_contact_sheet(directory: Path) -> None:
    """Writes a sheet of evenly spaced training records of each task."""
    source, tasks = open_records(directory, "train"), record_tasks(directory, "train")
    shown: list[Record] = []
    for task, number in _PICTURES_SHOWN.items():
        indices = np.flatnonzero(tasks == TASKS.index(task))
        shown += [source[int(index)] for index in indices[:: max(len(indices) // number, 1)][:number]]
    make_contact_sheet(shown).save(directory / "contact_sheet.png")


def _read_manifest(directory: Path) -> Any:
    path = directory / MANIFEST
    if not path.is_file():
        return None
    manifest = read_json_object(path)
    if not all(isinstance(manifest.get(name), kind) for name, kind in (("format", int), ("parameters", dict))):
        raise PrepareError(f"{path} is not as prepare_data wrote it. Give another --out, or remove the folder.")
    return manifest


def _print_summary(console: Console, out: Path) -> None:
    manifest = _read_manifest(out)
    assert manifest is not None, f"{out / MANIFEST} was removed after the dataset was written"
    counts = manifest["records"]
    table = Table(title=f"{manifest['parameters']['dataset']}: records")
    table.add_column("task")
    for split in counts:
        table.add_column(split, justify="right")
    for task in TASKS:
        if any(task in split for split in counts.values()):
            table.add_row(task, *(f"{split.get(task, 0):,}" for split in counts.values()))
    console.print(table)
    if "test" not in counts:
        console.print("There is no test split, because no record fell into it. Held-out losses need one.")
    tokenizer = Tokenizer.from_directory(out / "tokenizer")
    for what, where in (
        ("dataset", f"{out}"),
        ("tokenizer", f"{out / 'tokenizer'} ({len(tokenizer):,} ids)"),
        ("contact sheet", f"{out / 'contact_sheet.png'}"),
        ("license", (out / "LICENSE").read_text(encoding="utf-8")),
    ):
        console.print(f"{what + ':':15}{where}", markup=False, highlight=False)


if __name__ == "__main__":
    main(sys.argv[1:])
