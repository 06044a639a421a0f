"""Parquet files with pictures in them: BAGEL's public layouts, or columns of the record schema. See `docs/data.md`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

from uno_jax.data.sources.arrow import import_pyarrow, row_of
from uno_jax.data.sources.columns import TABLE_OPTIONS, choose_columns, table_columns
from uno_jax.data.sources.locations import SourceFile, find_files, state_of
from uno_jax.data.sources.rows import Row, cut_off, open_rows
from uno_jax.data.sources.source import DataSource, DataSourceError, Opened, Option, Reporter, Values, values_of
from uno_jax.process.errors import reason_of

_ROWS_AT_A_TIME = 1  # rows of a dictionary page may all refer to one huge value
_BUFFER = 2**20  # bytes that are read of a column at once


def open_parquet(values: Values, reporter: Reporter) -> Opened:
    """Opens the files at `values["parquet"]`."""
    files = _files(values)
    columns = [_columns(file, values) for file in files]
    rows = [partial(_rows, file, fields) for file, fields in zip(files, columns, strict=True)]
    description = f"Records of {values['parquet']} (Parquet)."
    return open_rows(rows, values, description=description, total=sum(map(_count, files)))


def _files(values: Values) -> list[SourceFile]:
    return find_files("parquet", values["parquet"], (".parquet",), "a Parquet file, or a folder of them")


def _columns(file: SourceFile, values: Values) -> dict[str, str]:
    """Returns the column of each field of a file, and refuses what is no Parquet file."""
    pyarrow, parquet = import_pyarrow("pyarrow"), import_pyarrow("pyarrow.parquet")
    try:
        with file.path.open("rb") as opened:
            names = parquet.ParquetFile(opened).schema_arrow.names
    except (pyarrow.ArrowException, OSError) as error:
        raise DataSourceError(f"{file.path}: not a Parquet file, or damaged ({reason_of(error)}).") from error
    return choose_columns(names, values, str(file.path))


def _count(file: SourceFile) -> int:
    """Returns the number of rows that the end of a file states."""
    with file.path.open("rb") as opened:
        count: int = import_pyarrow("pyarrow.parquet").ParquetFile(opened).metadata.num_rows
        return count


def _rows(file: SourceFile, columns: Mapping[str, str]) -> Iterator[Row]:
    pyarrow, parquet = import_pyarrow("pyarrow"), import_pyarrow("pyarrow.parquet")
    number = 0
    with file.path.open("rb") as opened:
        try:
            table = parquet.ParquetFile(opened, buffer_size=_BUFFER, pre_buffer=False)
            wanted = sorted(table_columns(columns))
            for batch in table.iter_batches(_ROWS_AT_A_TIME, columns=wanted, use_threads=False):
                for index in range(len(batch)):
                    number += 1
                    yield row_of(file.name, number, batch.slice(index, 1), columns)
        except (pyarrow.ArrowException, OSError) as error:
            yield Row(file.name, number + 1, {}, (cut_off(error),))


def _identity(values: Values) -> dict[str, object]:
    import_pyarrow("pyarrow")
    files = _files(values)
    for file in files:
        _columns(file, values)
    return {"files": state_of(files)} | values_of(TABLE_OPTIONS, values)


PARQUET = DataSource(
    name="parquet",
    summary="Parquet files in BAGEL's layouts, or with columns of the record schema",
    options=(
        Option("parquet", str, None, "Parquet file, or folder of them; a path or gs://", required=True),
        *TABLE_OPTIONS,
    ),
    identity=_identity,
    open=open_parquet,
)
