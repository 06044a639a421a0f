"""Sampling on eight devices, by the kernel and by dense attention, equals sampling on one."""

from __future__ import annotations

import json

import pytest

from tests.helpers.eight_device_process import run_with_eight_devices
from tests.helpers.sampling_on_eight_devices import RUNS


@pytest.fixture(scope="module")
def results() -> dict[str, dict]:
    return json.loads(run_with_eight_devices("-m", "tests.helpers.sampling_on_eight_devices"))


@pytest.mark.parametrize("run", [name for name in RUNS if name != "one"])
def test_images_and_texts_equal_those_of_dense_attention_on_one_device(results, run):
    """The noise is equal bit for bit; the latents are equal up to rounding, over four steps."""
    assert results[run]["devices"] == 8
    assert results[run]["kernel"] == ("kernel" in run)
    assert results[run]["noise"]
    assert results[run]["texts"]
    assert results[run]["difference"] < 1e-4
