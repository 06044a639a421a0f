"""The requirements of `benchmarks/slices.py`, and its search for edits that fit, on made-up estimates."""

from __future__ import annotations

import pytest

from benchmarks.slices import less_memory, requirements

CHIPS = 256
GRADIENTS_GIB = 1.5
SHARD = GRADIENTS_GIB * 2**30 * 16 / 2 / CHIPS
"""Bytes of one chip's shard of the bfloat16 gradients. 16 chips hold a full set."""


def estimate(*, inside: float = 64e9, between: dict[str, float] | None = None) -> dict:
    kinds = {"fsdp": {"all-gather": inside}, "data across slices": between or {"all-reduce": 1.1 * SHARD}}
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


def unmet(**changes) -> set[str]:
    met = requirements("v5e_512", {"v5e_16": estimate(), "v5e_512": estimate(**changes)})
    return {requirement for requirement, fulfilled in met.items() if not fulfilled}


def test_an_estimate_like_that_of_the_small_slice_meets_every_requirement():
    assert unmet() == set()


@pytest.mark.parametrize("inside", [70.5e9, 57.5e9])
def test_traffic_within_a_slice_may_differ_by_a_tenth(inside):
    assert unmet(inside=inside) == {"collectives within a slice within 10% of v5e_16"}


def test_an_all_gather_between_slices_is_not_allowed():
    between = {"all-reduce": SHARD, "all-gather": 0.1 * SHARD}
    assert unmet(between=between) == {"only all-reduce between slices"}


@pytest.mark.parametrize("share", [0.5, 16])
def test_traffic_between_slices_is_that_of_the_gradients(share):
    between = {"all-reduce": share * SHARD}
    assert unmet(between=between) == {"traffic between slices is about a chip's shard of the gradients"}


def test_edits_that_do_not_fit_are_tried_with_less_and_less_memory():
    edits = {"remat": "dots", "rows_per_step": 64, "mesh": {"data": 2, "fsdp": 16, "tensor": 1, "sequence": 1}}
    assert less_memory(edits) == {"model.decoder.remat": "full"}
    assert less_memory(edits | {"remat": "full"}) == {"data.rows": 32, "data.virtual_shards": 32}
    assert less_memory(edits | {"remat": "full", "rows_per_step": 32}) == {"model.decoder.remat": "offload"}
    assert less_memory(edits | {"remat": "offload", "rows_per_step": 32}) == {}
