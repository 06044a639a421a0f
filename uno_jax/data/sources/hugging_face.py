"""A folder that `datasets.save_to_disk` of Hugging Face wrote, read with pyarrow alone. See `docs/data.md`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from etils import epath

from uno_jax.data.sources.arrow import import_pyarrow, row_of
from uno_jax.data.sources.columns import TABLE_OPTIONS, choose_columns, table_columns
from uno_jax.data.sources.locations import SourceFile, is_remote, location, read_json, state_of
from uno_jax.data.sources.rows import Row, cut_off, open_rows
from uno_jax.data.sources.source import DataSource, DataSourceError, Opened, Option, Reporter, Values, values_of
from uno_jax.process.errors import reason_of

_OPTION = "hugging_face"
_AGAIN = "Give a folder that datasets.save_to_disk wrote"


def open_hugging_face(values: Values, reporter: Reporter) -> Opened:
    """Opens the folder `values["hugging_face"]`. Its splits stay; a single one is split by a hash of the ids."""
    splits = _splits(values)
    reads = {
        split: [partial(_rows, file, choose_columns(_names(files[0]), values, f"split {split!r}")) for file in files]
        for split, files in splits.items()
    }
    rows = reads if len(reads) > 1 else next(iter(reads.values()))
    return open_rows(rows, values, description=f"Records of {values[_OPTION]} (Hugging Face).")


def _splits(values: Values) -> dict[str, list[SourceFile]]:
    """Returns the files of each split."""
    folder = location(_OPTION, values[_OPTION])
    if (folder / "dataset_dict.json").is_file():
        names = read_json(folder / "dataset_dict.json", _AGAIN).get("splits")
        if not isinstance(names, list) or not all(
            isinstance(name, str) and re.fullmatch(r"\w+", name) for name in names
        ):
            raise DataSourceError(f"{folder / 'dataset_dict.json'}: no list of names of splits. {_AGAIN}.")
        if len(names) > 1 and "train" not in names:
            raise DataSourceError(f"{folder} has the splits {', '.join(names)}, but no train. Rename one of them.")
        splits = {name: _shards(folder, folder / name) for name in names}
    elif (folder / "state.json").is_file():
        splits = {"train": _shards(folder, folder)}
    else:
        raise DataSourceError(f"--{_OPTION}: {folder} has no dataset_dict.json and no state.json. {_AGAIN}.")
    splits = {name: files for name, files in splits.items() if files}
    if not splits:
        raise DataSourceError(f"--{_OPTION}: {folder} has no records.")
    return splits


def _shards(folder: epath.Path, split: epath.Path) -> list[SourceFile]:
    state = read_json(split / "state.json", _AGAIN)
    entries = state.get("_data_files")
    names = [entry.get("filename") for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    if state.get("_indices_data_files"):
        raise DataSourceError(f"{split} is a selection of rows in another file. Write it with save_to_disk again.")
    for name in names:
        if not isinstance(name, str) or not re.fullmatch(r"\w[\w.-]*", name):
            raise DataSourceError(f"{split / 'state.json'}: {str(name)[:200]!r} is no name of a file in it. {_AGAIN}.")
        if not (split / name).is_file():
            raise DataSourceError(f"{split / name}: missing. {_AGAIN}.")
    return [SourceFile(str((split / name).relative_to(folder)), split / name) for name in names]


def _open(file: SourceFile) -> Any:
    """Opens a stream of record batches; local files are mapped, so that only the rows in use are in memory."""
    pyarrow = import_pyarrow("pyarrow")
    opened = file.path.open("rb") if is_remote(file.path) else pyarrow.memory_map(str(file.path))
    return pyarrow.ipc.open_stream(opened)


def _names(file: SourceFile) -> list[str]:
    pyarrow = import_pyarrow("pyarrow")
    try:
        with _open(file) as stream:
            names: list[str] = stream.schema.names
            return names
    except (pyarrow.ArrowException, OSError) as error:
        raise DataSourceError(f"{file.path}: not an Arrow file, or damaged ({reason_of(error)}). {_AGAIN}.") from error


def _rows(file: SourceFile, columns: Mapping[str, str]) -> Iterator[Row]:
    pyarrow = import_pyarrow("pyarrow")
    wanted = sorted(table_columns(columns))
    number = 0
    try:
        with _open(file) as stream:
            for batch in stream:
                batch.validate()
                chosen = batch.select(wanted)
                for index in range(len(batch)):
                    number += 1
                    yield _row(file.name, number, chosen.slice(index, 1), columns)
    except (pyarrow.ArrowException, OSError, KeyError) as error:
        yield Row(file.name, number + 1, {}, (cut_off(error),))


def _row(file: str, number: int, batch: Any, columns: Mapping[str, str]) -> Row:
    try:
        batch.validate(full=True)  # offsets of a damaged file lead anywhere in memory
    except ValueError as error:
        return Row(file, number, {}, (("(row)", f"damaged ({reason_of(error)})", "Write the file again", "damaged"),))
    return row_of(file, number, batch, columns)


def _identity(values: Values) -> dict[str, object]:
    import_pyarrow("pyarrow")
    splits = _splits(values)
    for split, files in splits.items():
        for file in files:
            choose_columns(_names(file), values, f"split {split!r}")
    files_ = [file for files in splits.values() for file in files]
    return {"files": state_of(files_), "splits": sorted(splits)} | values_of(TABLE_OPTIONS, values)


HUGGING_FACE = DataSource(
    name="hugging_face",
    summary="a folder of datasets.save_to_disk",
    options=(
        Option(_OPTION, str, None, "folder that save_to_disk wrote; a path or gs://", required=True),
        *TABLE_OPTIONS,
    ),
    identity=_identity,
    open=open_hugging_face,
)
