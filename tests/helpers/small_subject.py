"""The small model as a checkpoint to look inside, and records for it."""

from __future__ import annotations

import functools

from tests.helpers.made_up_records import make_record, small_inputs
from tests.helpers.small_loaded import small_generator
from uno_jax.inside.subject import Checkpoint, Subject
from uno_jax.interop.provenance import Provenance
from uno_jax.objectives.config import ObjectiveConfig

RECORDS = [make_record(i) for i in range(5)]


@functools.cache
def small_subject() -> Subject:
    reader = small_generator().reader
    objective = ObjectiveConfig(time_shift=reader.model.time_shift)
    return Subject(Checkpoint("small", "small", reader.model.config, small_inputs(), objective, Provenance()), reader)
