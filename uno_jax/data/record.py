"""The record: one sample as stored in a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from uno_jax.data.plans import Features, Moments, PatchUse
from uno_jax.process.errors import UserError


class RecordError(UserError):
    """A record that cannot be used. The message names it."""

    def __init__(self, message: str, cause: str):
        super().__init__(message)
        self.cause = cause
        """The kind of problem in one word, under which such records are counted."""


@dataclass(frozen=True)
class Record:
    """One sample as stored. Pictures are encoded in any form that `decode_rgb` reads."""

    id: str
    """Id of the sample, the same in every build of the dataset."""
    task: str
    """One of `uno_jax.batch.TASKS`: text_to_image, editing, understanding."""
    image: bytes
    """The target picture; for understanding, the picture in question."""
    prompt: str
    """The prompt (text_to_image), the instruction (editing), the question (understanding)."""
    captions: tuple[str, ...] = ()
    """Descriptions of the target in other words, none equal to the prompt."""
    sources: tuple[bytes, ...] = ()
    """The pictures to edit; empty for every other task."""
    answer: str = ""
    """The answer (understanding); empty for every other task."""


@dataclass(frozen=True)
class EncodedRecord(Record):
    """A record with what was precomputed of its pictures: the autoencoder's moments, vision features, or both."""

    pictures: tuple[Moments | RecordError, ...] | None = None
    """Moments of the target and of each source, or why a picture could not be encoded; empty for a record none of whose
    pictures is given as latents. None = there are no moments."""
    features: Mapping[tuple[PatchUse, int], Features | RecordError] | None = None
    """Vision features of pictures, by use and number, or why a picture has none. None = there are no features."""

    def moments(self, number: int) -> Moments:
        """Returns the moments of a picture: 0 the target, from 1 the sources.

        Raises:
          RecordError: the picture could not be encoded.
        """
        assert self.pictures is not None, "the record has no moments"
        picture = self.pictures[number]
        if isinstance(picture, RecordError):
            raise picture
        return picture

    def vision_features(self, use: PatchUse, number: int) -> Features:
        """Returns the features of a picture for a use: 0 the target, from 1 the sources.

        Raises:
          RecordError: the picture could not be encoded.
        """
        assert self.features is not None, "the record has no features"
        picture = self.features[use, number]
        if isinstance(picture, RecordError):
            raise picture
        return picture


def with_encoded(record: Record, **encoded: Any) -> EncodedRecord:
    """Returns a record with further fields of `EncodedRecord`."""
    return EncodedRecord(**{field.name: getattr(record, field.name) for field in fields(record)} | encoded)


def as_stored(record: Record) -> Record:
    """Returns a record without anything precomputed."""
    return Record(**{field.name: getattr(record, field.name) for field in fields(Record)})
