"""Runs that take precomputed moments or vision features in place of pixels."""

from __future__ import annotations

import pytest

from tests.helpers.hosts import Hosts
from tests.helpers.hosts_hash import WHOLE
from tests.helpers.tiny_run import metrics_without_speeds, quiet, tiny_uno
from uno_jax.enrich.encode import encode
from uno_jax.run.encoded import parameters_hash
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


@pytest.mark.slow
def test_a_run_may_go_on_with_vision_features_and_has_the_losses_of_one_with_pixels(dataset, tmp_path):
    def config(steps, features=""):
        return tiny_uno(dataset, steps=steps, **{"data.features": str(features), "evaluation.every": 2})

    assert run(config(4), tmp_path / "pixels", console=quiet())
    encode(config(4), str(tmp_path / "pixels"), tmp_path / "out", quiet(), features=True)
    assert run(config(2), tmp_path / "features", console=quiet())
    assert run(config(4, tmp_path / "out"), tmp_path / "features", console=quiet())
    found, expected = (metrics_without_speeds(tmp_path / name) for name in ("features", "pixels"))
    assert [line["step"] for line in found] == [line["step"] for line in expected]
    for own, line in zip(found, expected, strict=True):
        assert own == pytest.approx(line, rel=1e-3, abs=1e-5)


def test_parameters_on_several_hosts_have_the_hash_of_those_on_one():
    for host in Hosts(["-m", "tests.helpers.hosts_hash"], hosts=2, devices=2).wait():
        assert f"hash {parameters_hash(WHOLE)}" in host.printed
