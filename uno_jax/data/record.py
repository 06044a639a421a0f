"""The record: one sample as every dataset stores it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Record:
    """One sample, as it is stored. Pictures are encoded RGB (PNG or JPEG)."""

    id: str
    """Stable: the same sample has the same id in every build of the dataset."""
    task: str
    """One of `uno_jax.batch.TASKS`: text_to_image, editing, understanding."""
    image: bytes
    """The target picture; for understanding, the picture that is asked about."""
    prompt: str
    """The prompt (text_to_image), the instruction (editing), the question (understanding)."""
    captions: tuple[str, ...] = ()
    """Descriptions of the target in other words, none equal to the prompt."""
    sources: tuple[bytes, ...] = ()
    """The pictures to edit; empty for every other task."""
    answer: str = ""
    """The answer (understanding); empty for every other task."""
