"""The data sources by name. A new source is its own file and a row here."""

from __future__ import annotations

from collections.abc import Iterable

from uno_jax.data.openmoji.dataset import OPENMOJI
from uno_jax.data.sources.jsonl import JSONL
from uno_jax.data.sources.source import DataSource, Option

SOURCES = {source.name: source for source in (OPENMOJI, JSONL)}


def all_options(sources: Iterable[DataSource]) -> dict[str, tuple[Option, list[str]]]:
    """The options of all sources by name, each with the names of the sources that have it.

    Raises:
      ValueError: two sources have different options of one name.
    """
    options: dict[str, tuple[Option, list[str]]] = {}
    for source in sources:
        for option in source.options:
            known, names = options.setdefault(option.name, (option, []))
            if known != option:
                raise ValueError(
                    f"the sources {names[0]} and {source.name} have different options {option.name!r}: share one "
                    "Option, or rename one of them"
                )
            names.append(source.name)
    return options
