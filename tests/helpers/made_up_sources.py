"""Reads sources of the user's own data in tests, and makes pictures for them."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from uno_jax.data.record import Record
from uno_jax.data.sources.source import DataSource, Rejection


def square(shade: int, side: int = 8, format: str = "PNG") -> bytes:
    """Returns an encoded picture of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (shade % 256, shade // 256, 99)).save(buffer, format)
    return buffer.getvalue()


@dataclass
class Heard:
    """A reporter that keeps what is rejected."""

    rejections: list[Rejection] = field(default_factory=list)

    def begin(self, stage: str, total: int | None) -> Any:
        return lambda: None

    def reject(self, rejection: Rejection) -> None:
        self.rejections.append(rejection)


def values_of(source: DataSource, **given: Any) -> dict[str, Any]:
    """Returns the value of each option: the given one, or its default. Nothing goes to the test split by default."""
    values = {option.name: option.default for option in source.options}
    if "test_fraction" in values:
        values["test_fraction"] = 0.0
    return values | {name: str(value) if isinstance(value, Path) else value for name, value in given.items()}


def read_all(source: DataSource, **given: Any) -> tuple[list[Record], list[Rejection]]:
    """Returns the records of all splits of a source, and its rejections."""
    values, heard = values_of(source, **given), Heard()
    source.identity(values)
    opened = source.open(values, heard)
    return [record for read in opened.splits.values() for record in read()], heard.rejections
