"""The search for the largest batch that fits, and the remedies if none does, with made-up memory needs."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Mapping

import pytest

from tests.helpers.made_up_estimates import ONE_DEVICE, TARGET, estimate_of, read
from uno_jax.config import ConfigError
from uno_jax.parallel.mesh import MeshConfig, make_mesh
from uno_jax.planning.chips import GIB, parse_slice
from uno_jax.planning.estimate import Compiled, Estimate
from uno_jax.planning.executed import Executed
from uno_jax.planning.fit import CHEAPEST_FIRST, largest_count, largest_fit, remedies, sampler_remedies
from uno_jax.planning.memory import Memory
from uno_jax.planning.report import sampler_json
from uno_jax.planning.roofline import Roofline
from uno_jax.planning.sampler import SamplerEstimate, every_step_guided
from uno_jax.run.config import RunConfig


def search(gib_of) -> list[Estimate]:
    """The estimates of a search that fit, where `gib_of(rows, index of the policy)` is the memory of a candidate."""
    config = read("tpu.v5e_16")

    def compiled(changed: RunConfig) -> Estimate:
        return estimate_of(changed, gib_of(changed.data.rows, CHEAPEST_FIRST.index(changed.model.decoder.remat)))

    return [estimate for estimate in largest_fit(config, make_mesh(config.mesh), compiled) if estimate.memory.fits]


def answer(estimate: Estimate) -> tuple[int, str]:
    return estimate.config.data.rows, estimate.config.model.decoder.remat


def test_the_largest_batch_is_found_and_then_the_cheapest_policy_that_fits():
    full = CHEAPEST_FIRST.index("full")
    # Five rows fit with `full`. Each cheaper policy saves 0.3 GiB more.
    estimates = search(lambda rows, policy: 3 * rows + 0.3 * (full - policy))
    assert answer(estimates[-1]) == (5, "save_projections")


def test_offloading_is_tried_only_if_no_batch_fits_without():
    offload = CHEAPEST_FIRST.index("offload")
    estimates = search(lambda rows, policy: 10 * rows if policy == offload else 20)
    assert {answer(estimate) for estimate in estimates} == {(1, "offload")}


def test_the_search_finds_nothing_if_nothing_fits():
    assert search(lambda rows, policy: 16) == []


def test_a_number_of_rows_that_raises_an_error_is_too_large():
    def estimate_of_count(count: int) -> Estimate:
        if count > 2:
            raise ConfigError("too many blocks")
        return estimate_of(read("tpu.v5e_16"), 1.0)

    assert len(list(largest_count(estimate_of_count))) == 2


def test_an_error_for_a_single_row_is_raised():
    def rejected(count: int) -> Estimate:
        raise ConfigError("too many blocks")

    with pytest.raises(ConfigError, match="too many blocks"):
        list(largest_count(rejected))


def test_remedies_are_ordered_by_cost_and_name_the_memory_that_they_free():
    advice = remedies(estimate_of(read("tpu.v5e_16"), 20.0))
    assert advice[0].startswith("4.25 GiB over the limit")
    places = [next(i for i, line in enumerate(advice) if text in line) for text in ("ema_memory", "moment", "adapters")]
    assert places == sorted(places)
    assert "frees 24." in advice[places[0]]  # 6.5 B EMA weights in float32


def with_probe(estimate: Estimate, gib: float) -> Estimate:
    """The estimate with a gradient probe that needs `gib` of memory."""
    return dataclasses.replace(estimate, probe=Memory(int(gib * GIB), 0, 0, 0, 0, gib * GIB <= TARGET.chip.hbm_bytes))


def test_a_run_fits_if_its_step_and_its_gradient_probe_fit():
    step = estimate_of(read("tpu.v5e_16"), 10.0)
    assert [with_probe(step, gib).memory.fits for gib in (9.0, 15.0, 16.0)] == [True, True, False]
    assert with_probe(step, 15.0).memory.peak == 15 * GIB


def test_a_run_does_not_fit_if_the_compiler_rejects_its_gradient_probe():
    rejected = Memory(3 * GIB, 0, 0, 0, 0, fits=False, message="RESOURCE_EXHAUSTED")
    assert not dataclasses.replace(estimate_of(read("tpu.v5e_16"), 10.0), probe=rejected).memory.fits


@pytest.mark.parametrize("fractions", [{}, {"caption": 0.5, "visual": 0.25}])
def test_the_first_remedy_for_a_gradient_probe_that_does_not_fit_is_to_turn_it_off(fractions):
    config = read("tpu.v5e_16")
    balance = dataclasses.replace(config.objective.balance, every=100, **fractions)
    config = dataclasses.replace(config, objective=dataclasses.replace(config.objective, balance=balance))
    advice = remedies(with_probe(estimate_of(config, 10.0), 16.0))
    assert advice[0].startswith("0.25 GiB over the limit")
    assert advice[1].startswith("  1. config.objective.balance.every=0")
    assert ("config.objective.balance.caption=0" in advice[1]) == bool(fractions)
    assert "balance" not in "".join(remedies(estimate_of(config, 16.0)))


def test_settings_that_are_already_in_use_are_not_remedies():
    config = read("tpu.v5e_8")
    advice = "\n".join(remedies(estimate_of(config, 20.0)))
    assert "moment_dtype" not in advice
    assert "ema_memory" not in advice


def test_the_state_is_sharded_within_slices_first_and_stays_replicated_across_slices():
    two_slices = parse_slice("2xv5e:4x4")
    copied = estimate_of(read("tpu.v5e_16"), 20.0, two_slices, ONE_DEVICE | {"data": 8, "fsdp": 4})
    state = sum(copied.state_bytes.values()) / GIB
    assert remedies(copied)[1].startswith("  1. config.mesh.data=1 and config.mesh.fsdp=-1")
    assert f"frees {state * 3 / 4:.2f} GiB" in remedies(copied)[1]
    sharded = estimate_of(read("tpu.v5e_16"), 20.0, two_slices, ONE_DEVICE | {"data": 2, "fsdp": 16})
    assert "mesh.data" not in "\n".join(remedies(sharded))


def with_rows(rows: int, accumulation: int = 1) -> RunConfig:
    config = read("tpu.v5e_16")
    data = dataclasses.replace(config.data, rows=rows, virtual_shards=rows)
    return dataclasses.replace(
        config, data=data, optimizer=dataclasses.replace(config.optimizer, accumulation=accumulation)
    )


SIXTEEN = parse_slice("v5e:4x4")


@pytest.mark.parametrize(("rows", "accumulation", "fewer"), [(32, 1, 16), (48, 1, 16), (80, 1, 32), (64, 2, 32)])
def test_fewer_rows_are_divisible_by_mesh_and_microbatches(rows, accumulation, fewer):
    advice = remedies(estimate_of(with_rows(rows, accumulation), 20.0, SIXTEEN, ONE_DEVICE | {"fsdp": 16}))
    assert f"config.data.rows={fewer} and config.data.virtual_shards={fewer}: fewer" in "\n".join(advice)
    assert "mesh.sequence" not in "\n".join(advice)


@pytest.mark.parametrize(("rows", "named"), [(32, True), (48, False)])
def test_accumulation_is_suggested_if_the_rows_of_a_chip_are_divisible(rows, named):
    advice = remedies(estimate_of(with_rows(rows), 20.0, SIXTEEN, ONE_DEVICE | {"fsdp": 16}))
    assert ("config.optimizer.accumulation=2" in "\n".join(advice)) == named


@pytest.mark.parametrize("accumulation", [1, 2])
def test_chips_share_a_row_if_each_has_one_row_at_a_time(accumulation):
    rows = 16 * accumulation
    advice = remedies(estimate_of(with_rows(rows, accumulation), 20.0, SIXTEEN, ONE_DEVICE | {"fsdp": 16}))
    assert f"config.mesh.sequence=2 with config.data.rows={rows // 2} and" in "\n".join(advice)
    assert "fewer rows" not in "\n".join(advice)


def test_a_single_chip_does_not_share_rows():
    assert "mesh.sequence" not in "\n".join(remedies(estimate_of(with_rows(1), 20.0)))


def test_sharing_rows_halves_another_axis_if_all_axes_are_fixed():
    estimate = estimate_of(with_rows(16), 20.0, SIXTEEN, ONE_DEVICE | {"fsdp": 16})
    fixed = dataclasses.replace(estimate.config, mesh=MeshConfig(data=1, fsdp=16))
    advice = "\n".join(remedies(dataclasses.replace(estimate, config=fixed)))
    assert "config.mesh.sequence=2 and config.mesh.fsdp=8 with config.data.rows=8" in advice


def test_ema_weights_in_host_memory_take_no_memory_of_the_chip():
    config = read("tpu.v5e_8")
    on_device = dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, ema_memory="device"))
    host, device = (estimate_of(c, 1.0).state_bytes["EMA"] for c in (config, on_device))
    assert host == 0
    assert device > 24 * GIB


def test_adapters_have_hardly_any_optimizer_state():
    state = estimate_of(read("tpu.v5e_4"), 1.0).state_bytes
    assert state["optimizer"] < 0.05 * state["frozen parameters"]


def sampler_of(
    images: int, gib: float, mesh_axes: Mapping[str, int] = ONE_DEVICE, topology: str = "v5e:1x1"
) -> SamplerEstimate:
    """An estimate of a sampler that needs `gib` of memory, with 8 GiB of parameters."""
    target = parse_slice(topology)
    memory = Memory(int(gib * GIB), 0, 0, 0, 0, gib * GIB <= target.chip.hbm_bytes)
    executed = Executed()
    executed.add("dot_general", 12e12)
    return SamplerEstimate(
        config=read("tpu.v5e_16"),
        target=target,
        mesh_axes=mesh_axes,
        images_per_part=images,
        flow=every_step_guided(50, 3.0),
        tokens=1000 * images,
        parameter_bytes=8 * GIB,
        needed=10e12,
        executed=executed,
        compiled=Compiled(memory, 1.0, (), 0, GIB),
        bound=Roofline(2.0, 1.0, 0.5, 0.0),
    )


def test_the_largest_number_of_images_of_a_sampler_is_found():
    tried = list(largest_count(lambda images: sampler_of(images, 3.0 * images)))
    assert [estimate.images for estimate in tried if estimate.memory.fits][-1] == 5


def test_remedies_of_a_sampler_are_the_mesh_then_fewer_images_then_a_larger_slice():
    advice = sampler_remedies(sampler_of(4, 20.0, ONE_DEVICE | {"data": 4}, "v5e:2x2"))
    assert [line[:6] for line in advice[1:]] == ["  1. c", "  2. -", "  3. a"]
    assert "frees 6.00 GiB" in advice[1]
    assert "--sample=2" in advice[2]


def test_an_image_too_large_for_a_chip_is_shared_by_two():
    advice = sampler_remedies(sampler_of(1, 20.0, ONE_DEVICE | {"fsdp": 4}, "v5e:2x2"))
    assert "config.mesh.sequence=2" in advice[1]


def test_the_report_of_a_sampler_has_speeds_and_a_roofline():
    report = sampler_json(sampler_of(4, 10.0), fraction=0.5)
    assert report["images_per_second"] == 4 / (2.0 / 0.5)
    assert report["tokens_per_second"] == 4000 / (2.0 / 0.5)
    assert report["roofline_seconds_by_resource"]["memory"] == 1.0
    assert report["bound_by"] == "arithmetic"
    assert report["compile_host_memory_gib"] == 1


@pytest.mark.parametrize(
    ("arguments", "message", "status"),
    [
        (("--sample=1", "--task=editing"), "the sampler supports only text_to_image", 1),
        (("--sample=-1",), "flag --sample=-1: ", 2),
        (("--sample=1", "--timesteps=1"), "flag --timesteps=1: ", 2),
        (("--fraction=0",), "flag --fraction=0: ", 2),
        (("--fraction=60",), "flag --fraction=60: ", 2),
    ],
)
def test_invalid_options_are_rejected_before_compilation(arguments, message, status):
    command = [sys.executable, "-m", "uno_jax.aot", "--config=configs/tpu/v5e_4.py", "--topology=v5e:2x2"]
    result = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    assert result.returncode == status
    assert message in result.stderr
    assert "Traceback" not in result.stderr
