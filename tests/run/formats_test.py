"""Runs on the same records in every format of the user's own data: they have the losses of those from JSONL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from absl import flags
from rich.console import Console

from tests.helpers.made_up_sources import every_format, made_of_jsonl, values_of
from tests.helpers.tiny_run import metrics_without_speeds, quiet, tiny_uno
from uno_jax.data.sources.registry import SOURCES
from uno_jax.prepare_data import Request, prepare
from uno_jax.run.run import run

pytestmark = pytest.mark.slow

STEPS = 3


def trained(folder: Path, source: str, **options: Any) -> list[dict[str, Any]]:
    """Prepares a dataset and trains on it for a few steps. Returns all metrics that do not depend on speed."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # grain reads them
    request = Request(SOURCES[source], values_of(SOURCES[source], **options), folder / "out", vocab_size=300)
    prepare(request, Console(quiet=True))
    changes = {"data.text_tokens": 128, "data.caption_tokens": 64, "data.virtual_shards": 1, "evaluation.records": 0}
    changes |= {"objective.answer_weight": 0.1, "steps": STEPS}
    assert run(tiny_uno(folder / "out", **changes), folder / "run", console=quiet())
    return metrics_without_speeds(folder / "run")


@pytest.fixture(scope="module")
def from_jsonl(tmp_path_factory):
    """Returns a function that gives the metrics of a run on records from a JSONL file."""
    return made_of_jsonl(trained, tmp_path_factory)


@every_format
def test_a_run_has_the_losses_of_the_same_records_from_jsonl(tmp_path, from_jsonl, source, write, records):
    found = trained(tmp_path, source, **write(tmp_path, records))
    assert len(found) == STEPS
    assert all(line["loss"] > 0 for line in found)
    assert found == from_jsonl(records)
