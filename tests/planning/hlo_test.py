"""Numbers from a compiled program: iterations of loops, bytes of collectives, and memory traffic of a chip."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from uno_jax.planning.collectives import axes_of_groups, bytes_by_axes, bytes_by_kind, device_groups, find_collectives
from uno_jax.planning.hlo import parse_hlo
from uno_jax.planning.traffic import hbm_bytes

HLO = """HloModule jit_step, is_scheduled=true

%sum (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %add = f32[] add(%a, %b)
}

%condition (state: (s32[], f32[8,128])) -> pred[] {
  %state = (s32[], f32[8,128]{1,0}) parameter(0)
  %bound = s32[] constant(28)
  %counter = s32[] get-tuple-element(%state), index=0
  ROOT %less = pred[] compare(%counter, %bound), direction=LT
}

%part (layers: f32[28,2,128], i: s32[]) -> f32[2,128] {
  %layers = f32[28,2,128]{2,1,0} parameter(0)
  %i = s32[] parameter(1)
  ROOT %slice = f32[1,2,128]{2,1,0} dynamic-slice(%layers, %i), dynamic_slice_sizes={1,2,128}
}

%body (state: (s32[], f32[8,128])) -> (s32[], f32[8,128]) {
  %state.1 = (s32[], f32[8,128]{1,0}, f32[28,2,128]{2,1,0}) parameter(0)
  %counter.1 = s32[] get-tuple-element(%state.1), index=0
  %kept = f32[8,128]{1,0:T(8,128)} get-tuple-element(%state.1), index=1
  %stacked = f32[28,2,128]{2,1,0} get-tuple-element(%state.1), index=2
  %layer = f32[1,2,128]{2,1,0:T(8,128)S(1)} fusion(%stacked, %counter.1), kind=kLoop, calls=%part
  %whole = f32[8,128]{1,0:T(8,128)} all-gather(%layer), channel_id=1, replica_groups=[2,4]<=[8], dimensions={0}
  ROOT %next = (s32[], f32[8,128]{1,0}) tuple(%counter.1, %whole)
}

ENTRY %main (x: f32[8,128]) -> f32[8,128] {
  %x = f32[8,128]{1,0} parameter(0)
  %zero = s32[] constant(0)
  %start = (s32[], f32[8,128]{1,0}) tuple(%zero, %x)
  %loop = (s32[], f32[8,128]{1,0}) while(%start), condition=%condition, body=%body
  %made = f32[8,128]{1,0} get-tuple-element(%loop), index=1
  ROOT %total = f32[8,128]{1,0} all-reduce(%made), channel_id=2, replica_groups={{0,4},{1,5},{2,6},{3,7}}, to_apply=%sum
}
"""
AXES = {"data": 2, "fsdp": 4}
ARRAY = 8 * 128 * 4


def test_collectives_are_counted_by_mesh_axis_once_per_iteration_of_their_loop():
    collectives = find_collectives(parse_hlo(HLO), AXES)
    assert bytes_by_axes(collectives) == {"fsdp": 28 * ARRAY * 3 // 4, "data": 2 * ARRAY // 2}


def test_collectives_of_an_axis_are_split_by_kind():
    collectives = find_collectives(parse_hlo(HLO), AXES)
    assert bytes_by_kind(collectives) == {
        "fsdp": {"all-gather": 28 * ARRAY * 3 // 4},
        "data": {"all-reduce": 2 * ARRAY // 2},
    }


def test_the_bound_of_a_loop_may_be_carried_by_it():
    text = HLO.replace("%bound = s32[] constant(28)", "%bound = s32[] get-tuple-element(%state), index=1")
    text = text.replace("tuple(%zero, %x)", "tuple(%zero, %many)")
    text = text.replace("  %zero =", "  %many = s32[] constant(28)\n  %zero =")
    assert parse_hlo(text).runs["body"] == 28


def test_the_bound_of_a_loop_may_be_in_a_fusion():
    compared = """%compared (i: s32[]) -> pred[] {
  %i = s32[] parameter(0)
  %most = s32[] constant(28)
  ROOT %l = pred[] compare(%i, %most), direction=LT
}

%condition ("""
    text = HLO.replace("compare(%counter, %bound), direction=LT", "fusion(%counter), kind=kLoop, calls=%compared")
    text = text.replace("%bound = s32[] constant(28)", "%bound = s32[] constant(1)")
    assert parse_hlo(text.replace("%condition (", compared, 1)).runs["body"] == 28


def test_collectives_between_slices_are_counted_separately():
    collectives = find_collectives(parse_hlo(HLO), AXES, slice_of=[0] * 4 + [1] * 4)
    assert set(bytes_by_axes(collectives)) == {"fsdp", "data across slices"}


def test_transfers_of_the_runtime_between_slices_are_counted():
    sent = (
        "  %send = (f32[8,128]{1,0}, u32[], token[]) send(%made), channel_id=9, is_host_transfer=true, "
        'frontend_attributes={_xla_host_transfer_handler_name="xla_megascale_runtime",'
        '_xla_host_transfer_rendezvous="all-reduce.7_0"}\n'
    )
    text = HLO.replace("  ROOT %total", sent + "  ROOT %total")
    collectives = find_collectives(parse_hlo(text), AXES, slice_of=[0] * 4 + [1] * 4)
    assert [item.kind for item in collectives if item.across_slices][-1] == "all-reduce"
    assert bytes_by_axes(collectives)["data across slices"] == 2 * ARRAY // 2 + ARRAY


STEPPING = HLO.replace("tuple(%counter.1, %whole)", "tuple(%after, %whole)").replace(
    "  %whole =", "  %by = s32[] constant(2)\n  %after = s32[] add(%counter.1, %by)\n  %whole ="
)


def test_a_loop_whose_counter_steps_by_two_runs_half_as_often():
    assert parse_hlo(STEPPING).runs["body"] == 14


def test_the_number_of_iterations_is_rounded_up():
    started = STEPPING.replace("%zero = s32[] constant(0)", "%first = s32[] constant(1)\n  %zero = s32[] copy(%first)")
    assert parse_hlo(started).runs["body"] == 14  # 1, 3, ... 27
    assert parse_hlo(STEPPING.replace("constant(28)", "constant(27)")).runs["body"] == 14


def test_a_peeled_iteration_counts_with_those_of_the_loop():
    """The compiler moves the first iteration out of the loop: its collective is there again, on the same channel."""
    ahead = "  %early = f32[8,128]{1,0} all-gather(%x), channel_id=1, replica_groups=[2,4]<=[8], dimensions={0}\n"
    text = STEPPING.replace("%by = s32[] constant(2)", "%by = s32[] constant(1)")
    text = text.replace("%zero = s32[] constant(0)", "%zero = s32[] constant(1)").replace(
        "  %zero =", ahead + "  %zero ="
    )
    assert bytes_by_axes(find_collectives(parse_hlo(text), AXES))["fsdp"] == (27 + 1) * ARRAY * 3 // 4


def test_different_collectives_on_one_channel_all_count():
    shifted = (
        "  %shifted = f32[4,128]{1,0} collective-permute(%part), channel_id=2, "
        "source_target_pairs={{0,4},{4,0},{1,5},{5,1},{2,6},{6,2},{3,7},{7,3}}\n"
    )
    text = HLO.replace("  ROOT %total", shifted + "  ROOT %total")
    assert bytes_by_axes(find_collectives(parse_hlo(text), AXES))["data"] == 2 * ARRAY // 2 + ARRAY // 2


def test_a_collective_that_overlaps_with_computation_counts_once():
    """One fusion starts it, another overlaps with it, a third ends it. All three contain the full collective."""
    gather = "all-gather(%p), channel_id=1, replica_groups=[2,4]<=[8], dimensions={0}"
    pieces = f"""%starts (p: f32[2,128]) -> f32[8,128] {{
  %p = f32[2,128]{{1,0}} parameter(0)
  %g = f32[8,128]{{1,0}} {gather}
  ROOT %s = f32[8,128]{{1,0}} custom-call(%g), custom_call_target="AsyncCollectiveStart"
}}

%async_collective_fusion.1 (p: f32[2,128]) -> f32[8,128] {{
  %p = f32[2,128]{{1,0}} parameter(0)
  ROOT %g = f32[8,128]{{1,0}} {gather}
}}

%ends (p: f32[2,128]) -> f32[8,128] {{
  %p = f32[2,128]{{1,0}} parameter(0)
  %g = f32[8,128]{{1,0}} {gather}
  ROOT %d = f32[8,128]{{1,0}} custom-call(%p, %g), custom_call_target="AsyncCollectiveDone"
}}

%condition ("""
    steps = "".join(
        f"  %{name} = f32[8,128]{{1,0}} fusion(%layer), kind=kCustom, calls=%{called}\n"
        for name, called in (("begun", "starts"), ("beside", "async_collective_fusion.1"))
    )
    text = HLO.replace("%condition (", pieces, 1).replace("  %whole =", steps + "  %whole =")
    text = text.replace(
        "all-gather(%layer), channel_id=1, replica_groups=[2,4]<=[8], dimensions={0}", "fusion(%layer), calls=%ends"
    )
    assert bytes_by_axes(find_collectives(parse_hlo(text), AXES))["fsdp"] == 28 * ARRAY * 3 // 4


@pytest.mark.parametrize("called_again", ["", ", calls=%apart"])
def test_a_collective_in_an_asynchronous_computation_counts_once(called_again):
    gather = "all-gather(%p), channel_id=1, replica_groups=[2,4]<=[8], dimensions={0}"
    apart = f"""%apart (p: f32[2,128]) -> f32[8,128] {{
  %p = f32[2,128]{{1,0:S(1)}} parameter(0)
  ROOT %g = f32[8,128]{{1,0}} {gather}
}}

%condition ("""
    began = "  %began = ((f32[2,128]{1,0}), f32[8,128]{1,0}, u32[]) async-start(%layer), calls=%apart\n"
    text = HLO.replace("%condition (", apart, 1).replace("  %whole =", began + "  %whole =")
    text = text.replace(gather.replace("%p", "%layer"), "async-done(%began)" + called_again)
    program = parse_hlo(text)
    assert bytes_by_axes(find_collectives(program, AXES))["fsdp"] == 28 * ARRAY * 3 // 4
    assert hbm_bytes(program) == hbm_bytes(parse_hlo(HLO))


def test_traffic_counts_slices_of_stacked_layers_and_skips_on_chip_memory():
    # The loop reads a layer's slice and writes the gathered array. The all-reduce reads and writes an array.
    assert hbm_bytes(parse_hlo(HLO)) == 28 * (2 * 128 * 4 + ARRAY) + 2 * ARRAY


@pytest.mark.parametrize(
    ("text", "axes"),
    [
        ("replica_groups={{0,1,2,3},{4,5,6,7}}", ("fsdp",)),
        ("replica_groups=[4,2]<=[2,4]T(1,0)", ("data",)),
        ("replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_1'}", ("fsdp",)),
        ("replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_0','axis_1'}", ("data", "fsdp")),
        ("replica_groups=mesh['axis_0'=4,'axis_1'=2], device_ids=([2,4]T(1,0)) {'axis_0'}", ("fsdp",)),
        ("replica_groups=mesh['axis_0'=4,'axis_1'=2], device_ids=([2,4]T(1,0)) {'axis_1'}", ("data",)),
        ("replica_groups={}", ("data", "fsdp")),
        ("source_target_pairs={{0,1},{1,2},{2,3},{3,0}}", ("fsdp",)),
    ],
)
def test_device_groups_are_parsed_in_every_notation(text, axes):
    assert axes_of_groups(device_groups(text, 8), AXES) == axes


def test_device_groups_in_an_unknown_notation_are_an_error():
    with pytest.raises(ValueError, match=r"unknown notation .* replica_groups=grid<2,4>"):
        device_groups("replica_groups=grid<2,4>", 8)


def test_a_real_program_on_one_device_has_no_collectives():
    program = parse_hlo(
        jax.jit(lambda x: jax.lax.scan(lambda c, _: (c @ c, None), x, length=4)[0])
        .lower(jnp.zeros((8, 8)))
        .compile()
        .as_text()
    )
    assert find_collectives(program, {"fsdp": 1}) == []
    assert max(program.runs.values()) == 4
