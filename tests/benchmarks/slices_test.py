"""What the benchmark of the slices demands of plans, and tries where edits do not fit, on made-up plans."""

from __future__ import annotations

import pytest

from benchmarks.slices import easier, promises

CHIPS = 256
GRADIENTS_GIB = 1.5
PART = GRADIENTS_GIB * 2**30 * 16 / 2 / CHIPS
"""Bytes of one chip's part of the gradients in bfloat16, where 16 chips hold all of them once."""


def estimate(*, inside: float = 64e9, between: dict[str, float] | None = None) -> dict:
    kinds = {"fsdp": {"all-gather": inside}, "data across slices": between or {"all-reduce": 1.1 * PART}}
    return {
        "fits": True,
        "encoder_share": 0.01,
        "images_per_chip": 2,
        "ema": True,
        "moment_dtype": "float32",
        "flops_ratio": 1.3,
        "hbm_peak_gib": 14.0,
        "hbm_state_gib": {"gradients": GRADIENTS_GIB},
        "chips": 2 * CHIPS,
        "slices": 2,
        "mesh": {"data": 32, "fsdp": 16, "tensor": 1, "sequence": 1},
        "collective_bytes_per_chip": {axes: sum(of_axes.values()) for axes, of_axes in kinds.items()},
        "collective_bytes_by_kind": kinds,
    }


def broken(**changes) -> set[str]:
    kept = promises("v5e_512", {"v5e_16": estimate(), "v5e_512": estimate(**changes)})
    return {promise for promise, held in kept.items() if not held}


def test_a_plan_as_that_of_the_small_slice_keeps_every_promise():
    assert broken() == set()


@pytest.mark.parametrize("inside", [70.5e9, 57.5e9])
def test_more_than_a_tenth_more_or_less_in_a_slice_breaks_a_promise(inside):
    assert broken(inside=inside) == {"collectives in a slice within 10% of v5e-16"}


def test_a_gather_between_slices_breaks_a_promise():
    between = {"all-reduce": PART, "all-gather": 0.1 * PART}
    assert broken(between=between) == {"between slices sums only"}


@pytest.mark.parametrize("share", [0.5, 16])
def test_sums_that_are_not_those_of_the_gradients_break_a_promise(share):
    between = {"all-reduce": share * PART}
    assert broken(between=between) == {"between slices about a chip's part of the gradients"}


def test_edits_that_do_not_fit_are_tried_with_less_memory_step_by_step():
    made = {"remat": "dots", "rows_per_step": 64, "mesh": {"data": 2, "fsdp": 16, "tensor": 1, "sequence": 1}}
    assert easier(made) == {"model.decoder.remat": "full"}
    assert easier(made | {"remat": "full"}) == {"data.rows": 32, "data.virtual_shards": 32}
    assert easier(made | {"remat": "full", "rows_per_step": 32}) == {"model.decoder.remat": "offload"}
    assert easier(made | {"remat": "offload", "rows_per_step": 32}) == {}
