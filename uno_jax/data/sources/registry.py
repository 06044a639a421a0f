"""The registry of data sources. To add a source, write a file and add a row here."""

from __future__ import annotations

from collections.abc import Iterable

from uno_jax.data.openmoji.dataset import OPENMOJI
from uno_jax.data.scenes.dataset import SCENES
from uno_jax.data.sources.conversations import CONVERSATIONS
from uno_jax.data.sources.csv_table import CSV
from uno_jax.data.sources.hugging_face import HUGGING_FACE
from uno_jax.data.sources.jsonl import JSONL
from uno_jax.data.sources.parquet import PARQUET
from uno_jax.data.sources.prepared import PREPARED
from uno_jax.data.sources.source import DataSource, Option
from uno_jax.data.sources.tfds_dataset import TFDS
from uno_jax.data.sources.webdataset import WEBDATASET

SOURCES = {
    source.name: source
    for source in (
        OPENMOJI,
        SCENES,
        JSONL,
        CSV,
        CONVERSATIONS,
        PARQUET,
        WEBDATASET,
        HUGGING_FACE,
        TFDS,
        PREPARED,
    )
}


def all_options(sources: Iterable[DataSource]) -> dict[str, tuple[Option, list[str]]]:
    """Returns the options of all sources by name, each with the names of its sources.

    Raises:
      ValueError: two sources have different options with the same name.
    """
    options: dict[str, tuple[Option, list[str]]] = {}
    for source in sources:
        for option in source.options:
            known, names = options.setdefault(option.name, (option, []))
            if known != option:
                raise ValueError(
                    f"the sources {names[0]} and {source.name} define {option.name!r} differently: share one Option, "
                    "or rename one of them"
                )
            names.append(source.name)
    return options
