"""Runs that take precomputed moments in place of pixels."""

from __future__ import annotations

import pytest

from tests.helpers.tiny_run import metrics_without_speeds, quiet, tiny_uno
from uno_jax.enrich.encode import encode
from uno_jax.run.run import run


@pytest.mark.slow
def test_the_losses_are_those_of_a_run_with_pixels_bit_for_bit(dataset, unbroken, tmp_path):
    # The autoencoder of this model only rearranges pixels, so moments do not depend on how pictures are batched.
    moments = tmp_path / "moments"
    encode(tiny_uno(dataset), str(unbroken), moments, quiet())
    changes = {"data.encoded": str(moments), "data.workers": 2}
    assert run(tiny_uno(dataset, **changes), tmp_path / "run", console=quiet())
    assert metrics_without_speeds(tmp_path / "run") == metrics_without_speeds(unbroken)
