"""Reads sources of the user's own data in tests, and makes pictures for them."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from rich.console import Console

from uno_jax.data.conversion.ledger import Ledger
from uno_jax.data.conversion.parts import convert
from uno_jax.data.record import Record
from uno_jax.data.sources.registry import SOURCES
from uno_jax.data.sources.source import DataSource, Rejection
from uno_jax.prepare_data import Request, prepare

Result = TypeVar("Result")


def square(shade: int, side: int = 8, format: str = "PNG") -> bytes:
    """Returns an encoded picture of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (shade % 256, shade // 256, 99)).save(buffer, format)
    return buffer.getvalue()


class Quiet:
    """A reporter that shows nothing."""

    def begin(self, stage: str, total: int | None) -> Any:
        return lambda: None


def values_of(source: DataSource, **given: Any) -> dict[str, Any]:
    """Returns the value of each option: the given one, or its default. Nothing goes to the test split by default."""
    values = {option.name: option.default for option in source.options}
    if "test_fraction" in values:
        values["test_fraction"] = 0.0
    return values | {name: str(value) if isinstance(value, Path) else value for name, value in given.items()}


def read_all(source: DataSource, **given: Any) -> tuple[list[Record], list[Rejection]]:
    """Returns the records of all splits of a source, and its rejections."""
    source.identity(values_of(source, **given))
    splits, rejections = _read(source, given)
    return [record for records in splits.values() for record in records], rejections


def read_splits(source: DataSource, **given: Any) -> dict[str, list[Record]]:
    """Returns the records of a source by split."""
    return _read(source, given)[0]


def _read(source: DataSource, given: dict[str, Any]) -> tuple[dict[str, list[Record]], list[Rejection]]:
    opened = source.open(values_of(source, **given), Quiet())
    ledger = Ledger(lambda rejection: None)
    splits: dict[str, list[Record]] = {}
    for piece in opened.pieces:
        for item in piece():
            made, accepted = opened.make(item), ledger.accepted
            ledger.add((0, 0), [convert(made)[0]])
            if ledger.accepted > accepted:
                splits.setdefault(made.split, []).extend(made.records)
    return splits, ledger.rejections


# The same records in every format. Pictures are numbers, of which `square` makes pictures.

SINGLE: tuple[dict[str, Any], ...] = (
    {"id": "a/1", "image": 1, "prompt": "a red square", "captions": ["all red", "something red, and square"]},
    {"id": "a/2", "image": 2, "prompt": 'ein rötliches "Quadrat", 2'},
    {"id": "b/3", "task": "editing", "image": 3, "sources": [4, 5], "prompt": "join them", "captions": ["joined"]},
    {"id": "b/4", "task": "understanding", "image": 6, "prompt": "Which colour?\nOne word.", "answer": "Blue."},
)
ROUNDS: tuple[dict[str, Any], ...] = (
    {"id": "c/5", "images": [7, 8, 9], "instructions": [["darker", "less light"], ["lighter"]]},
    {"id": "c/6", "images": [10, 11], "instructions": [["make it blue"]]},
)
TURNS: tuple[dict[str, Any], ...] = (
    {"id": "d/7", "image": 12, "turns": [["What is it?", "A square."], ["Its colour?", "Red."]]},
    {"id": "d/8", "image": 13, "turns": [["Describe it.", "A red square."]]},
)


def with_pictures(record: dict[str, Any], make: Any) -> dict[str, Any]:
    """Returns a record with what `make` returns for each number of a picture."""
    changed = dict(record)
    for name in ("image", "images", "sources"):
        if name in record:
            value = record[name]
            changed[name] = [make(number) for number in value] if isinstance(value, list) else make(value)
    return changed


def write_pictures(folder: Path, records: tuple[dict[str, Any], ...]) -> Path:
    """Writes the pictures of records into a folder, which it returns."""
    folder.mkdir(parents=True, exist_ok=True)

    def write(number: int) -> None:
        (folder / f"{number}.png").write_bytes(square(number))

    for record in records:
        with_pictures(record, write)
    return folder


def picture_name(number: int) -> str:
    return f"{number}.png"


def write_jsonl(folder: Path, records: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    """Writes records as JSONL and a folder of pictures. Returns the options of the source."""
    images = write_pictures(folder / "images", records)
    lines = [json.dumps(with_pictures(record, picture_name)) + "\n" for record in records]
    (folder / "records.jsonl").write_text("".join(lines))
    return {"jsonl": folder / "records.jsonl", "images": images}


def write_csv(folder: Path, records: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    images = write_pictures(folder / "images", records)
    with (folder / "records.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for record in records for name in record)))
        writer.writeheader()
        for record in records:
            named = with_pictures(record, picture_name)
            writer.writerow({k: json.dumps(v) if isinstance(v, list) else v for k, v in named.items()})
    return {"csv": folder / "records.csv", "images": images}


def arrow_table(records: tuple[dict[str, Any], ...]) -> pa.Table:
    rows = [with_pictures(record, square) for record in records]
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.Table.from_pylist([{name: row.get(name) for name in names} for row in rows])


def write_parquet(folder: Path, records: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    pq.write_table(arrow_table(records), folder / "records.parquet")
    return {"parquet": folder / "records.parquet"}


def write_bagel_pairs(folder: Path, records: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    """Writes pictures with captions in the layout of BAGEL: the first caption is the prompt."""
    rows = [
        {
            "id": record["id"],
            "image": square(record["image"]),
            "captions": json.dumps({str(i): text for i, text in enumerate([record["prompt"], *record["captions"]])}),
        }
        for record in records
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "pairs.parquet")
    return {"parquet": folder}


def write_bagel_edits(folder: Path, records: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    rows = [
        {"id": r["id"], "image_list": [square(n) for n in r["images"]], "instruction_list": r["instructions"]}
        for r in records
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "edits.parquet")
    return {"parquet": folder}


def write_conversations(folder: Path, records: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    lines = []
    for record in records:
        said = [
            {"from": who, "value": f"<image>\n{text}" if who == "human" and not number else text}
            for number, turn in enumerate(record["turns"])
            for who, text in zip(("human", "gpt"), turn, strict=True)
        ]
        lines.append({"id": record["id"], "image": picture_name(record["image"]), "conversations": said})
    (folder / "talk.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return {"conversations": folder / "talk.jsonl", "images": write_pictures(folder / "images", records)}


def add_member(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def write_webdataset(folder: Path, records: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    with tarfile.open(folder / "records.tar.gz", "w:gz") as archive:
        for record in records:
            fields = {k: v for k, v in record.items() if k not in ("id", "image", "images", "sources", "prompt")}
            if fields:
                add_member(archive, f"{record['id']}.json", json.dumps(fields).encode())
            if "prompt" in record:
                add_member(archive, f"{record['id']}.txt", record["prompt"].encode())
            if "image" in record:
                add_member(archive, f"{record['id']}.png", square(record["image"]))
            for name in ("images", "sources"):
                for index, number in enumerate(record.get(name, ())):
                    add_member(archive, f"{record['id']}.{name}.{index}.png", square(number))
    return {"webdataset": folder / "records.tar.gz"}


def write_hugging_face(folder: Path, records: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    """Writes what `datasets.Dataset.save_to_disk` writes."""
    table, name = arrow_table(records), "data-00000-of-00001.arrow"
    with pa.ipc.new_stream(folder / name, table.schema) as stream:
        stream.write_table(table, max_chunksize=3)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
    return {"hugging_face": folder}


def write_prepared(folder: Path, records: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    (folder / "before").mkdir()
    values = values_of(SOURCES["jsonl"], **write_jsonl(folder / "before", records))
    prepare(Request(SOURCES["jsonl"], values, folder / "dataset", vocab_size=300), Console(quiet=True))
    return {"prepared": folder / "dataset"}


class MadeUpPictures(tfds.core.GeneratorBasedBuilder):
    """A dataset of TFDS with the fields of the record schema that every record has."""

    VERSION = tfds.core.Version("1.0.0")
    records: tuple[dict[str, Any], ...] = ()
    code_path = None

    def _info(self) -> Any:
        text, picture = tfds.features.Text(), tfds.features.Image(encoding_format="png")
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "id": text,
                    "task": tfds.features.ClassLabel(names=["text_to_image", "editing", "understanding"]),
                    "image": picture,
                    "prompt": text,
                    "captions": tfds.features.Sequence({"text": text}),
                    "sources": tfds.features.Sequence(picture),
                    "answer": text,
                }
            )
        )

    def _split_generators(self, dl_manager: Any) -> Any:
        return {"train": self._generate_examples()}

    def _generate_examples(self) -> Any:
        for record in self.records:
            full = {"task": "text_to_image", "captions": [], "sources": [], "answer": ""} | record
            full = with_pictures(full, lambda number: io.BytesIO(square(number)))
            yield record["id"], full | {"captions": [{"text": text} for text in full["captions"]]}


def write_tfds(folder: Path, records: tuple[dict[str, Any], ...], format: str = "array_record") -> dict[str, Any]:
    MadeUpPictures.records = records
    builder = MadeUpPictures(data_dir=folder, file_format=format)
    builder.download_and_prepare(download_dir=str(folder / "downloads"))
    return {"tfds": "made_up_pictures", "tfds_data_dir": folder, "columns": "captions=captions.text"}


ALL = (*SINGLE, *ROUNDS, *TURNS)

every_format = pytest.mark.parametrize(
    ("source", "write", "records"),
    [
        ("csv", write_csv, ALL),
        ("parquet", write_parquet, ALL),
        ("parquet", write_bagel_pairs, SINGLE[:1]),
        ("parquet", write_bagel_edits, ROUNDS),
        ("conversations", write_conversations, TURNS),
        ("webdataset", write_webdataset, ALL),
        ("hugging_face", write_hugging_face, ALL),
        ("tfds", write_tfds, SINGLE),
        ("prepared", write_prepared, ALL),
    ],
    ids=lambda value: getattr(value, "__name__", "").removeprefix("write_") or None,
)
"""Runs a test for every format but JSONL: the source, what writes its files, and records that it can hold."""


def made_of_jsonl(
    make: Callable[..., Result], folders: pytest.TempPathFactory
) -> Callable[[tuple[dict[str, Any], ...]], Result]:
    """Returns a function of records: what `make(folder, "jsonl", **options)` makes of them, once for equal records."""
    known: list[tuple[tuple[dict[str, Any], ...], Result]] = []

    def result_of(records: tuple[dict[str, Any], ...]) -> Result:
        for those, result in known:
            if those == records:
                return result
        folder = folders.mktemp("jsonl")
        known.append((records, make(folder, "jsonl", **write_jsonl(folder, records))))
        return known[-1][1]

    return result_of
