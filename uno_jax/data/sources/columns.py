"""Columns of tables, such as Parquet files, as fields of the record schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from uno_jax.data.sources.schema import FIELDS, PICTURE_OPTIONS
from uno_jax.data.sources.source import TEST_FRACTION, DataSourceError, Option, Values
from uno_jax.process.json_reader import JsonError, parse_json

COLUMNS = Option("columns", str, "", "columns of fields with another name, such as prompt=caption,image=jpg")
IGNORE = Option("ignore", str, "", "columns to leave out, such as url,width; `rest` is every column that is no field")

TABLE_OPTIONS = (COLUMNS, IGNORE, *PICTURE_OPTIONS, TEST_FRACTION)
"""Options of all sources that read tables, which their records depend on."""

# Names of BAGEL's layout.
_NAMES = {"image_list": "images", "instruction_list": "instructions"}
_LISTS = ("captions", "sources", "images", "instructions", "turns")


def choose_columns(
    names: Sequence[str], values: Values, where: str, own_names: Mapping[str, str] = _NAMES
) -> dict[str, str]:
    """Returns the column of each field that a table has.

    Args:
      names: the columns of the table.
      values: the options `columns` and `ignore`.
      where: name of the table in messages.
      own_names: names of fields in this format, besides those of the schema.

    Raises:
      DataSourceError: an option is wrong, or a column is neither a field nor ignored.
    """
    chosen: dict[str, str] = {}
    for pair in filter(None, values["columns"].split(",")):
        field, _, column = (part.strip() for part in pair.partition("="))
        if field not in FIELDS or not column or field in chosen:
            expected = f"expected FIELD=COLUMN, with each of the fields {', '.join(FIELDS)} at most once"
            raise DataSourceError(f"--columns: {pair!r}: {expected}.")
        if column.partition(".")[0] not in names:
            raise DataSourceError(f"--columns: {where} has no column {column!r}. It has {', '.join(names)}.")
        chosen[field] = column
    ignored = {name.strip() for name in values["ignore"].split(",")}
    taken = table_columns(chosen)
    rest = [name for name in names if name not in ignored | taken]
    for name in list(rest):
        field = own_names.get(name, name)
        if field in FIELDS and field not in chosen:
            chosen[field] = name
            rest.remove(name)
    if rest and "rest" not in ignored:
        raise DataSourceError(
            f"{where} has columns that are no fields: {', '.join(rest[:20])}. Name their fields, as in "
            f"--columns=prompt={rest[0]}, or leave them out with --ignore={','.join(rest[:20])} (or --ignore=rest). "
            f"Fields: {', '.join(FIELDS)}."
        )
    if not chosen.keys() & {"image", "images"}:
        raise DataSourceError(f"{where} has no column of pictures (image, images or image_list). See docs/data.md.")
    return chosen


def table_columns(columns: Mapping[str, str]) -> set[str]:
    """Returns the columns of a table that have the fields, of which some have a part only."""
    return {column.partition(".")[0] for column in columns.values()}


def fields_of(row: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """Returns the fields of a row of a table. Values that no field can hold are left as they are."""
    return {field: field_value(field, _at(row, column)) for field, column in columns.items()}


def field_value(field: str, value: Any) -> Any:
    """Returns the value of a column as that of a field: ids as text, lists from JSON, pictures from structs.

    An empty list, task or answer is absent.
    """
    if field == "id" and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if field in ("image", "images", "sources") and not isinstance(value, str):
        found = _picture(value)
        return None if found == [] else found
    if field in _LISTS and isinstance(value, str):
        value = _list_of(value)
    if field in (*_LISTS, "task", "answer") and value in ([], "", ()):
        return None
    if field == "captions" and isinstance(value, list) and all(isinstance(item, tuple) for item in value):
        value = dict(value)  # a map of Arrow
    if field == "captions" and isinstance(value, dict):  # BAGEL: texts by name
        return [text for text in value.values() if text is not None]
    return value


def _at(row: Mapping[str, Any], column: str) -> Any:
    """Returns the value of a column, or of a part of it, such as `captions.text`."""
    if column in row:
        return row[column]
    name, _, path = column.partition(".")
    return _part(row.get(name), path)


def _part(value: Any, path: str) -> Any:
    if not path:
        return value
    if isinstance(value, list):
        return [_part(item, path) for item in value]
    name, _, rest = path.partition(".")
    return _part(value.get(name), rest) if isinstance(value, dict) else None


def _picture(value: Any) -> Any:
    """Returns the content of a picture; its path, or "", if the content is not there."""
    if isinstance(value, list):
        return [_picture(item) for item in value]
    if isinstance(value, dict):  # of Hugging Face: content and path
        return value.get("bytes") or value.get("path") or ""
    return value


def _list_of(text: str) -> Any:
    """Parses a list or an object in JSON. Another text is a list of itself."""
    if text.lstrip()[:1] not in ("[", "{"):
        return [text] if text.strip() else []
    try:
        return parse_json(text)
    except JsonError as error:
        return str(error)  # no list: the check of the field says so
