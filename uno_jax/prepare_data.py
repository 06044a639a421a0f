"""Prepares a dataset: `python -m uno_jax.prepare_data --dataset=openmoji --out=DIR`; see docs/data.md.

`prepare_data encode` and `prepare_data recaption` add to a prepared dataset what a model computes of it;
`prepare_data validate` checks one as a run would read it.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from absl import flags, logging
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from uno_jax.batch import TASKS
from uno_jax.config import json_file, to_json
from uno_jax.data.record import Record
from uno_jax.data.records import open_records, record_tasks, write_records
from uno_jax.data.sources.source import DataSource, Rejection, Values
from uno_jax.data.tokenizer import Tokenizer, check_vocab_size, train_tokenizer
from uno_jax.data.tokenizer_files import TOKENIZER_FILES
from uno_jax.process.errors import UserError, exit_with_message
from uno_jax.process.files import check_folder, is_empty, new_folder
from uno_jax.process.flags import define_path, define_typed, field_values, parse_flags, section_of
from uno_jax.process.json_reader import read_json_object
from uno_jax.process.signals import exit_on_signals
from uno_jax.sheets.records import make_contact_sheet

try:
    from uno_jax.data.sources.registry import SOURCES, all_options
except ImportError as error:
    sys.exit(f"prepare_data needs {error.name}. Install the extra `data`: pip install '.[data]' (docs/install.md)")

MANIFEST = "dataset.json"
REJECTED = "rejected.jsonl"
FORMAT = 1  # version of the directory's format; datasets of another version count as different
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
    )


def prepare(request: Request, console: Console) -> None:
    """Writes the requested dataset completely or not at all. Does nothing if it already exists.

    Raises:
      PrepareError: `request.out` holds something else, or the records or the tokenizer are invalid.
      DataSourceError: the source cannot be read.
    """
    tfds.disable_progress_bar()  # ours is shown instead
    out, parameters = request.out, _parameters(request)
    if out.exists() and not out.is_dir():
        raise PrepareError(f"{out} is a file, not a folder. Give another --out.")
    if out.exists() and not is_empty(out):
        existing = _read_manifest(out)
        if existing is not None and existing["parameters"] == parameters:
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
    check_folder(out)
    with new_folder(out) as partial:
        with _progress(console) as progress:
            reporter = _Reporter(progress)
            splits, texts = _write_records(partial, request, reporter)
            reporter.write(partial / REJECTED)
            _write_tokenizer(partial / "tokenizer", texts, request)
            _write_contact_sheet(partial)
        manifest = {"format": FORMAT, "parameters": parameters, "records": _count(partial, splits)}
        (partial / MANIFEST).write_bytes(json_file(manifest))
    _print_summary(console, out)


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
    """Shows progress and rejections on the terminal, and lists and counts the rejections."""

    def __init__(self, progress: Progress):
        self._progress = progress
        self._rejections: list[Rejection] = []
        self._fields: Counter[str] = Counter()
        self.rejected: set[tuple[str, int]] = set()
        """File and line of each record that was rejected."""

    def begin(self, stage: str, total: int | None) -> Callable[[], None]:
        task = self._progress.add_task(stage, total=total)
        return lambda: self._progress.advance(task)

    def reject(self, rejection: Rejection) -> None:
        self.rejected.add((rejection.file, rejection.line))
        if self._fields.total() < _REJECTIONS_SHOWN:
            self._print(f"rejected {rejection}")
        self._rejections.append(rejection)
        # Items of a list are counted as one field, so that the counts stay few.
        self._fields[f"{rejection.field.partition('[')[0]} {rejection.cause}".strip()] += 1

    def write(self, file: Path) -> None:
        """Writes all rejections, one JSON object per line, if there are any."""
        if self._rejections:
            file.write_text("".join(json.dumps(to_json(rejection)) + "\n" for rejection in self._rejections))

    def summarise(self, accepted: int) -> None:
        """Prints the number of rejected records, if any, and the rejections by field."""
        if not self.rejected:
            return
        more = self._fields.total() - _REJECTIONS_SHOWN
        if more > 0:
            self._print(f"... and {more} more rejections")
        fields = ", ".join(f"{field}: {count}" for field, count in self._fields.most_common())
        records = len(self.rejected) + accepted
        self._print(f"{len(self.rejected)} of {records} records rejected (rejections by field: {fields})")

    def check(self, accepted: int, request: Request) -> None:
        """Raises PrepareError if more records were rejected than the request allows."""
        rejected = len(self.rejected)
        if request.strict and rejected:
            raise PrepareError("records were rejected, which --strict does not allow. Correct them, or omit --strict.")
        share = rejected / max(rejected + accepted, 1)
        if accepted and share > request.max_rejected:
            raise PrepareError(
                f"{share:.0%} of the records were rejected, more than --max_rejected={request.max_rejected:g} allows. "
                "Correct them, or raise it."
            )

    def _print(self, text: str) -> None:
        self._progress.console.print(text, markup=False, highlight=False)


def _write_records(directory: Path, request: Request, reporter: _Reporter) -> tuple[list[str], list[str]]:
    """Writes the records of the source. Returns its splits, `train` first, and the texts to train a tokenizer on."""
    opened = request.source.open(request.values, reporter)
    if opened.total is not None:
        reporter.summarise(opened.total)
        reporter.check(opened.total, request)
    if "train" not in opened.splits:
        if opened.total is None:
            reporter.summarise(0)
        raise PrepareError("no training records. Correct the rejected records, or lower --test_fraction.")
    advance = reporter.begin("Writing records", opened.total)
    written = 0
    texts: list[str] = []

    def on_record() -> None:
        nonlocal written
        written += 1
        advance()

    def train_records() -> Iterator[Record]:
        for record in opened.splits["train"]():
            texts.extend(dict.fromkeys(text for text in (record.prompt, *record.captions, record.answer) if text))
            yield record

    readers = {"train": train_records} | {split: opened.splits[split] for split in opened.splits if split != "train"}
    write_records(
        directory,
        request.source.name,
        readers,
        description=opened.description,
        license_text=opened.license,
        homepage=opened.homepage,
        on_record=on_record,
    )
    if opened.total is None:
        reporter.summarise(written)
    reporter.check(written, request)
    return list(readers), list(dict.fromkeys(texts)) if request.source.count_texts_once else texts


def _write_tokenizer(directory: Path, texts: list[str], request: Request) -> None:
    if request.tokenizer is None:
        train_tokenizer(texts, request.vocab_size, directory)
        return
    directory.mkdir()
    for name in TOKENIZER_FILES:
        shutil.copy(request.tokenizer / name, directory / name)


def _write_contact_sheet(directory: Path) -> None:
    source, tasks = open_records(directory, "train"), record_tasks(directory, "train")
    shown: list[Record] = []
    for task, number in _PICTURES_SHOWN.items():
        indices = (tasks == TASKS.index(task)).nonzero()[0]
        shown += [source[int(index)] for index in indices[:number]]
    make_contact_sheet(shown).save(directory / "contact_sheet.png")


def _count(directory: Path, splits: Sequence[str]) -> dict[str, dict[str, int]]:
    counts = {}
    for split in splits:
        tasks = Counter(TASKS[task] for task in record_tasks(directory, split))
        counts[split] = {task: tasks[task] for task in TASKS if tasks[task]}
    return counts


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
