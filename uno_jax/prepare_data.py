"""Prepares a dataset: `python -m uno_jax.prepare_data --dataset=openmoji --out=DIR`; see docs/data.md.

`prepare_data encode` and `prepare_data recaption` add to a prepared dataset what a model computes of it;
`prepare_data validate` checks one as a run would read it.
"""

from __future__ import annotations

import hashlib
import importlib
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import flags, logging
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from uno_jax.batch import TASKS
from uno_jax.data.conversion import dataset_files
from uno_jax.data.conversion.convert import convert_source, write_shards
from uno_jax.data.conversion.dataset_files import MANIFEST, REJECTED
from uno_jax.data.conversion.ledger import Ledger, by_field
from uno_jax.data.conversion.parts import RECORDS_PER_PART
from uno_jax.data.conversion.shards import shards_of
from uno_jax.data.conversion.statistics import histograms
from uno_jax.data.record import Record
from uno_jax.data.records import open_records, record_tasks
from uno_jax.data.sources.source import DataSource, DataSourceError, Rejection, Values
from uno_jax.data.tokenizer import Tokenizer, check_vocab_size, train_tokenizer
from uno_jax.data.tokenizer_files import TOKENIZER_FILES
from uno_jax.process.errors import UserError, exit_with_message
from uno_jax.process.files import is_empty, write_json
from uno_jax.process.flags import define_path, define_typed, field_values, parse_flags, section_of
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
_REJECTIONS_SHOWN = 50
_PICTURES_SHOWN = {"text_to_image": 20, "editing": 20, "understanding": 10}


class PrepareError(UserError):
    """The request or the data are invalid. The message says what to do."""


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
    processes: int = 0
    """Number of processes that decode and write; 0 = the number of cores. The dataset does not depend on it."""
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
    return Request(
        source,
        field_values(options, own),
        Path(options.out),
        Path(options.tokenizer) if options.tokenizer else None,
        options.vocab_size,
        options.strict,
        options.max_rejected,
        options.overwrite,
        options.processes,
        options.records_per_part,
    )


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
    if out.exists() and not is_empty(out):
        existing = _read_manifest(out)
        if existing is not None and existing["parameters"] == parameters:
            forget(out)
            console.print(f"{out} already holds this dataset: nothing to do.", markup=False, highlight=False)
            _print_summary(console, out)
            return
        if not request.overwrite:
            if existing is None:
                raise PrepareError(f"{out} is not empty and not a dataset. Give another --out.")
            raise PrepareError(
                f"{out} holds a dataset made with other parameters. Give another --out, or --overwrite to replace it."
            )
        if existing is None:
            raise PrepareError(
                f"{out} is not empty and not a dataset, and --overwrite replaces only datasets. Give another --out."
            )
    try:
        with work_on(out, parameters | {"records_per_part": request.records_per_part}) as work:
            _make(work, request, parameters, console)
    except (PrepareError, DataSourceError):  # nothing that was done is of use
        forget(out)
        raise
    _print_summary(console, out)


def _make(work: Work, request: Request, parameters: dict[str, object], console: Console) -> None:
    """Makes the dataset in `work.made`."""
    source, made, parts = request.source, work.made, work.folder / "parts"
    processes = request.processes or core_count()
    with _progress(console) as progress:
        reporter = _Reporter(progress)
        opened = source.open(request.values, reporter)
        ledger = Ledger(reporter.reject)
        on_items = reporter.advance("Converting records", opened.total)
        convert_source(opened, parts, ledger, on_items, processes=processes, items_per_part=request.records_per_part)
        reporter.summarise(ledger)
        _check(ledger, request)
        splits = ["train", *(split for split in ledger.stored if split != "train")]
        shards = {split: shards_of(ledger.stored[split]) for split in splits}
        on_records = reporter.advance("Writing shards", ledger.accepted)
        write_shards(made, source.name, shards, parts, on_records, processes=processes)
        dataset_files.write_split_files(made, source.name, shards, opened)
        dataset_files.write_rejections(made / REJECTED, ledger.rejections)
        texts = dataset_files.texts_of(ledger.facts["train"])
        tokenizer = _write_tokenizer(
            made / "tokenizer", list(dict.fromkeys(texts)) if source.count_texts_once else texts, request
        )
        _write_contact_sheet(made)
    facts = (facts for split in splits for facts in ledger.facts[split])
    manifest = {
        "format": FORMAT,
        "parameters": parameters,
        "records": dataset_files.task_counts(shards),
        "rejected": {"records": ledger.rejected, "by_field": by_field(ledger.rejections)},
        "histograms": histograms(facts, lambda text: len(tokenizer.encode(text))),
        "files": dataset_files.file_table(made, processes),
    }
    write_json(made / MANIFEST, manifest)


def _check(ledger: Ledger, request: Request) -> None:
    """Raises PrepareError if there are no training records, or more were rejected than the request allows."""
    if not ledger.stored.get("train"):
        raise PrepareError("no training records. Correct the rejected records, or lower --test_fraction.")
    if request.strict and ledger.rejected:
        raise PrepareError("records were rejected, which --strict does not allow. Correct them, or omit --strict.")
    share = ledger.rejected / (ledger.rejected + ledger.accepted)
    if share > request.max_rejected:
        raise PrepareError(
            f"{share:.0%} of the records were rejected, more than --max_rejected={request.max_rejected:g} allows. "
            "Correct them, or raise it."
        )


def _parameters(request: Request) -> dict[str, object]:
    """Returns everything that determines the contents of the dataset. Equal parameters give equal datasets."""
    source = request.source
    parameters: dict[str, object] = {"format": FORMAT, "dataset": source.name}
    if request.tokenizer:
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


class _Reporter:
    """Shows progress and rejections on the terminal."""

    def __init__(self, progress: Progress):
        self._progress = progress
        self._rejections = 0

    def begin(self, stage: str, total: int | None) -> Callable[[], None]:
        task = self._progress.add_task(stage, total=total)
        return lambda: self._progress.advance(task)

    def advance(self, stage: str, total: int | None) -> Callable[[int], None]:
        """Shows a new stage, and returns the function to call with a number of items that are done."""
        task = self._progress.add_task(stage, total=total)
        return lambda items: self._progress.advance(task, items)

    def reject(self, rejection: Rejection) -> None:
        self._rejections += 1
        if self._rejections <= _REJECTIONS_SHOWN:
            self._print(f"rejected {rejection}")

    def summarise(self, ledger: Ledger) -> None:
        """Prints the number of rejected records, if any, and the rejections by field."""
        if not ledger.rejected:
            return
        more = self._rejections - _REJECTIONS_SHOWN
        if more > 0:
            self._print(f"... and {more} more rejections")
        fields = ", ".join(f"{field}: {count}" for field, count in by_field(ledger.rejections).items())
        records = ledger.rejected + ledger.accepted
        self._print(f"{ledger.rejected} of {records} records rejected (rejections by field: {fields})")

    def _print(self, text: str) -> None:
        self._progress.console.print(text, markup=False, highlight=False)


def _write_tokenizer(directory: Path, texts: list[str], request: Request) -> Tokenizer:
    if request.tokenizer is None:
        return train_tokenizer(texts, request.vocab_size, directory)
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
    return read_json_object(path) if path.is_file() else None


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


def _progress(console: Console) -> Progress:
    text = TextColumn("{task.description:18}")
    return Progress(text, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console)


if __name__ == "__main__":
    main(sys.argv[1:])
