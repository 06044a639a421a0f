"""Records with further captions that a model wrote, from the folder of `prepare_data recaption`.

An entry is a JSON list of captions. A caption has `text`, `style`, `checkpoint` (name and hash of the model), and `cut`
if the model had not ended the text at the maximum length.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from uno_jax.data.annex import open_annex
from uno_jax.data.config import DataConfig
from uno_jax.data.record import Record
from uno_jax.data.records import RecordSource

KIND = "captions"


@dataclass(frozen=True)
class WrittenCaption:
    """A caption that a model wrote."""

    text: str
    style: str
    """Name of the question that it answers."""
    checkpoint: str
    """Name and SHA-256 of the model's checkpoint, with a space between them."""
    cut: bool = False
    """Whether the text was cut at the maximum length. Such captions are kept for people and not trained on."""


def to_entry(captions: Sequence[WrittenCaption]) -> bytes:
    """Returns the entry of a record."""
    found = [
        {"text": caption.text, "style": caption.style, "checkpoint": caption.checkpoint}
        | ({"cut": True} if caption.cut else {})
        for caption in captions
    ]
    return json.dumps(found, ensure_ascii=False).encode()


def from_entry(entry: bytes) -> list[WrittenCaption]:
    """Returns the captions of an entry."""
    return [WrittenCaption(**caption) for caption in json.loads(entry)]


def with_captions(records: RecordSource, config: DataConfig, split: str, fingerprint: str) -> RecordSource:
    """Adds the captions in `config.captions` to the records of a split, if there are any of this split.

    Args:
      records: the records.
      config: the data config of the dataset.
      split: the split.
      fingerprint: `split_fingerprint` of the split.

    Raises:
      AnnexError: they are not complete, are of other records, or are not of the split that is trained.
    """
    if not config.captions:
        return records
    annex = open_annex(config.captions, KIND)
    if split != config.split and split not in annex.about["splits"]:
        return records
    return annex.added_to(records, _add_captions, config.directory, split, fingerprint)


def captioned(record: Record, written: Sequence[WrittenCaption]) -> Record:
    """Adds to a record the whole captions that are neither empty, nor its prompt, nor one of its captions."""
    known = {_plain(text) for text in ("", record.prompt, *record.captions)}
    further = []
    for caption in written:
        if not caption.cut and _plain(caption.text) not in known:
            known.add(_plain(caption.text))
            further.append(caption.text)
    return replace(record, captions=(*record.captions, *further))


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()


def _add_captions(entry: bytes, record: Record) -> Record:
    return captioned(record, from_entry(entry))
