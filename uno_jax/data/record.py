"""The record: one sample as stored in a dataset."""

from __future__ import annotations

from dataclasses import dataclass, fields

from uno_jax.data.plans import Moments
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
    """A record with the precomputed moments of its pictures."""

    pictures: tuple[Moments | RecordError, ...] = ()
    """Moments of the target and of each source, or why a picture could not be encoded; empty for a record none of whose
    pictures is given as latents."""

    def moments(self, number: int) -> Moments:
        """Returns the moments of a picture: 0 the target, from 1 the sources.

        Raises:
          RecordError: the picture could not be encoded.
        """
        picture = self.pictures[number]
        if isinstance(picture, RecordError):
            raise picture
        return picture


def without_moments(record: Record) -> Record:
    """Returns a record as it is stored."""
    return Record(**{field.name: getattr(record, field.name) for field in fields(Record)})
