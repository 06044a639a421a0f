"""Runs that take precomputed moments in place of pixels."""

from __future__ import annotations

import pytest

from tests.helpers.tiny_run import metrics_without_speeds, quiet, tiny_uno
from uno_jax.enrich.encode import encode
from uno_jax.run.run import run


@pytest.mark.slow
def test_the_losses_are_those_of_a_run_with_pixels_bit_for_bit(dataset, tmp_path):
    # The autoencoder of this model only rearranges pixels, so moments do not depend on how pictures are batched.
    changes = {"steps": 2, "evaluation.records": 0}
    assert run(tiny_uno(dataset, **changes), tmp_path / "pixels", console=quiet())
    encode(tiny_uno(dataset), str(tmp_path / "pixels"), tmp_path / "out", quiet())
    changes |= {"data.encoded": str(tmp_path / "out")}
    assert run(tiny_uno(dataset, **changes), tmp_path / "moments", console=quiet())
    assert metrics_without_speeds(tmp_path / "moments") == metrics_without_speeds(tmp_path / "pixels")
