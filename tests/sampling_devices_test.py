"""Eight devices sample what one does."""

from __future__ import annotations

import json

import pytest

from tests.eight_device_process import run_with_eight_devices
from tests.sampling_on_eight_devices import MESHES


@pytest.fixture(scope="module")
def results() -> dict[str, dict]:
    return json.loads(run_with_eight_devices("-m", "tests.sampling_on_eight_devices"))


@pytest.mark.parametrize("mesh", [name for name in MESHES if name != "one"])
def test_pictures_and_texts_are_those_of_one_device(results, mesh):
    """The noise bit by bit; the latents up to rounding, over four steps."""
    assert results[mesh]["devices"] == 8
    assert results[mesh]["noise"]
    assert results[mesh]["texts"]
    assert results[mesh]["difference"] < 1e-4
