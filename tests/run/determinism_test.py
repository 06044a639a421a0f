"""The same config, seed and mesh give the same bits."""

from __future__ import annotations

import pytest

from tests.helpers.tiny_run import assert_same_run, quiet, tiny_uno
from uno_jax.run.run import run

pytestmark = pytest.mark.slow


def test_two_runs_of_a_config_are_equal_bit_for_bit(dataset, unbroken, tmp_path):
    assert run(tiny_uno(dataset), tmp_path / "again", console=quiet())
    assert_same_run(tmp_path / "again", unbroken, 6)


def test_another_seed_gives_another_run(dataset, unbroken, tmp_path):
    assert run(tiny_uno(dataset, seed=1), tmp_path / "other", console=quiet())
    with pytest.raises(AssertionError):
        assert_same_run(tmp_path / "other", unbroken, 6)
