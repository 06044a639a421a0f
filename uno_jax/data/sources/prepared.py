"""Another dataset of `prepare_data`: its records and splits as they are. See `docs/data.md`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

from etils import epath

from uno_jax.data.record import RecordError
from uno_jax.data.records import open_records, record_tasks, splits_of
from uno_jax.data.sources.locations import SourceFile, state_of
from uno_jax.data.sources.rows import LICENSE, Row, open_rows
from uno_jax.data.sources.schema import PICTURE_OPTIONS
from uno_jax.data.sources.source import DataSource, DataSourceError, Opened, Option, Reporter, Values, values_of


def open_prepared(values: Values, reporter: Reporter) -> Opened:
    """Opens the dataset in the folder `values["prepared"]`."""
    folder = Path(values["prepared"])
    splits = {split: [partial(_rows, folder, split)] for split in splits_of(folder)}
    description = f"Records of the dataset {folder.name}."
    own = folder / "LICENSE"
    license_ = own.read_text(encoding="utf-8") if own.is_file() else LICENSE
    total = sum(len(record_tasks(folder, split)) for split in splits)
    return open_rows(splits, values, description=description, license=license_, total=total)


def _rows(folder: Path, split: str) -> Iterator[Row]:
    records = open_records(folder, split)
    for index in range(len(records)):
        try:
            record = asdict(records[index])
        except RecordError as error:
            problem = ("(record)", str(error).rstrip("."), "Prepare its dataset again", error.cause)
            yield Row(split, index + 1, {}, (problem,))
            continue
        given = {name: list(value) if isinstance(value, tuple) else value for name, value in record.items()}
        empty = {name for name in ("captions", "sources", "answer") if not given[name]}
        yield Row(split, index + 1, {name: value for name, value in given.items() if name not in empty})


def _identity(values: Values) -> dict[str, object]:
    folder = Path(values["prepared"])
    splits = splits_of(folder) if folder.is_dir() else []
    if not splits:
        raise DataSourceError(f"--prepared: {folder} is no dataset of prepare_data. Give the folder of its --out.")
    for split in splits:
        open_records(folder, split).check()
    files = [SourceFile(path.name, epath.Path(path)) for path in sorted(folder.iterdir()) if path.is_file()]
    return {"files": state_of(files)} | values_of(PICTURE_OPTIONS, values)


PREPARED = DataSource(
    name="prepared",
    summary="another dataset of prepare_data",
    options=(
        Option("prepared", Path, None, "folder of the dataset", required=True),
        *PICTURE_OPTIONS,
    ),
    identity=_identity,
    open=open_prepared,
)
