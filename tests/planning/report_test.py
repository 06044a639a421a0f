"""Reports of estimates, as a table and as JSON."""

from __future__ import annotations

import dataclasses
import io

import pytest
import rich.console

from tests.helpers.made_up_estimates import estimate_of, read
from uno_jax.planning.chips import GIB
from uno_jax.planning.estimate import Compiled, Estimate
from uno_jax.planning.executed import Executed
from uno_jax.planning.memory import Memory
from uno_jax.planning.report import estimate_json, estimate_table
from uno_jax.planning.roofline import Roofline

REQUIRED = {
    *("topology", "chips", "images_per_chip", "ema", "fits", "hbm_peak_gib", "hbm_capacity_gib", "model_flops"),
    *("executed_flops", "flops_ratio", "collective_bytes_per_chip", "roofline_seconds", "bound_by", "compile_seconds"),
}


def estimate(gib: float) -> Estimate:
    """An estimate of `configs/tpu/v5e_16.py` with round numbers."""
    executed = Executed()
    executed.add("dot_general", 12e12)
    bound = Roofline(arithmetic=2.0, memory=1.0, interconnect=0.5, network=0.0) if gib < 15 else None
    result = estimate_of(read("tpu.v5e_16"), gib)
    return dataclasses.replace(
        result, needed={"attention": 4e12, "generation expert": 6e12}, executed=executed, bound=bound
    )


def printed(estimate: Estimate) -> str:
    console = rich.console.Console(file=io.StringIO(), width=140)
    console.print(estimate_table(estimate, fraction=0.5))
    return console.file.getvalue()


def row(text: str, name: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(name))


@pytest.mark.parametrize("gib", [10.0, 20.0])
def test_the_object_has_every_required_field_whether_it_fits_or_not(gib):
    assert estimate_json(estimate(gib), 0.5).keys() >= REQUIRED


def test_speeds_and_hours_are_those_at_the_fraction_of_the_roofline():
    report = estimate_json(estimate(10.0), fraction=0.5)
    assert report["images_per_second"] == 32 / (2.0 / 0.5)
    assert report["hours"] == pytest.approx(5000 * 4.0 / 3600)
    assert report["flops_ratio"] == pytest.approx(1.2)


def test_what_does_not_fit_has_no_speed():
    report = estimate_json(estimate(20.0), fraction=0.5)
    assert (report["roofline_seconds"], report["images_per_second"], report["hours"]) == (None, None, None)


def test_the_table_shows_the_settings_and_whether_they_fit():
    text = printed(estimate(10.0))
    assert text.startswith("v5e:1x1, 1 chips, 32 images per chip, text_to_image: fits")
    assert "32" in row(text, "rows per step")
    assert "rematerialisation: full" in row(text, "rows per step")
    assert "bound by arithmetic" in row(text, "roofline time")
    assert "DOES NOT FIT" in printed(estimate(20.0))


def test_the_peak_is_that_of_the_gradient_probe_if_it_needs_more_than_the_step():
    probed = dataclasses.replace(estimate(10.0), probe=Memory(12 * GIB, 0, 0, 0, 0, fits=True))
    assert row(printed(probed), "peak memory").split()[-4:] == ["of", "the", "gradient", "probe"]
    report = estimate_json(probed, 0.5)
    assert (report["hbm_peak_gib"], report["gradient_probe_gib"]) == (12.0, 12.0)
    assert "saved activations" not in printed(probed)
    assert "probe" not in printed(estimate(10.0))
    assert "saved activations" in printed(estimate(10.0))


def test_the_autoencoder_is_listed_if_there_is_one():
    memory = Memory(10 * GIB, 0, 0, 0, 0, fits=True, autoencoder=GIB // 4)
    result = dataclasses.replace(estimate(10.0), compiled=Compiled(memory, 0.0, (), 0, GIB))
    assert "0.25 GiB" in row(printed(result), "  autoencoder")
    assert estimate_json(result, 0.5)["hbm_autoencoder_gib"] == 0.25
    assert "  autoencoder" not in printed(estimate(10.0))
