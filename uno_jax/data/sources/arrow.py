"""What the sources share that read with pyarrow, which is imported only when one of them is used."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from uno_jax.data.sources.columns import fields_of
from uno_jax.data.sources.rows import Row
from uno_jax.data.sources.source import DataSourceError


def import_pyarrow(name: str) -> Any:
    """Imports pyarrow, or one of its modules.

    Raises:
      DataSourceError: it is not installed. The message says what to install.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DataSourceError(
            f"{name} cannot be imported ({error}). Install the extra `arrow`: pip install '.[arrow]' (docs/install.md)"
        ) from error


def row_of(file: str, number: int, batch: Any, columns: Mapping[str, str]) -> Row:
    """Returns the row of a record batch of Arrow that has one row."""
    try:
        [row] = batch.to_pylist()
    except UnicodeDecodeError as error:
        return Row(file, number, {}, (("(row)", f"text that is not UTF-8 ({error.reason})", "Write UTF-8"),))
    return Row(file, number, fields_of(row, columns))
