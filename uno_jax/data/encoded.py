"""Records with the precomputed moments of their pictures, from the folder of `prepare_data encode`.

An entry is a line of JSON, followed by the moments of the pictures in float32, little-endian. The line is the list of
the record's pictures, the target first: rows and columns of latent tokens, or why the picture could not be encoded.
Entries of vision features (`features.py`) have the same form.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from uno_jax.data.annex import open_annex
from uno_jax.data.config import DataConfig
from uno_jax.data.plans import Features, Moments
from uno_jax.data.record import Record, RecordError, with_encoded
from uno_jax.data.records import RecordSource

KIND = "moments"
FLOAT = "<f4"


def to_entry(pictures: Sequence[Moments | Features | RecordError], dtype: str = FLOAT) -> bytes:
    """Returns the entry of a record, with values of a dtype."""
    head = [
        {"cause": picture.cause, "problem": str(picture)} if isinstance(picture, RecordError) else picture.shape[:2]
        for picture in pictures
    ]
    arrays = [picture.astype(dtype).tobytes() for picture in pictures if not isinstance(picture, RecordError)]
    return b"".join([json.dumps(head).encode(), b"\n", *arrays])


def from_entry(entry: bytes, width: int, dtype: str = FLOAT) -> tuple[np.ndarray | RecordError, ...]:
    """Returns the pictures of an entry, with `width` values of a dtype for each token."""
    head, _, rest = entry.partition(b"\n")
    values = np.frombuffer(rest, np.dtype(dtype))
    pictures: list[np.ndarray | RecordError] = []
    for picture in json.loads(head):
        if isinstance(picture, Mapping):
            pictures.append(RecordError(picture["problem"], picture["cause"]))
            continue
        rows, columns = picture
        count = rows * columns * width
        pictures.append(values[:count].reshape(rows, columns, width))
        values = values[count:]
    return tuple(pictures)


def with_moments(records: RecordSource, config: DataConfig, split: str, fingerprint: str) -> RecordSource:
    """Adds the moments in `config.encoded`, if any, to the records of a split.

    Args:
      records: the records.
      config: the data config of the dataset.
      split: the split.
      fingerprint: `split_fingerprint` of the split.

    Raises:
      AnnexError: they are not there, not complete, or of other records.
    """
    if not config.encoded:
        return records
    annex = open_annex(config.encoded, KIND)
    add = partial(_add_moments, annex.about["moments_per_token"])
    return annex.added_to(records, add, config.directory, split, fingerprint)


def _add_moments(width: int, entry: bytes, record: Record) -> Record:
    """Adds the moments of the pictures of a record, `width` of each latent token."""
    return with_encoded(record, pictures=from_entry(entry, width))
