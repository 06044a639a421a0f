"""What a plan counts: FLOPs of a jaxpr against counts by hand, collectives and traffic of compiled programs, memory."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas as pl
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from tests.small_model import small_model
from uno_jax.attention.attend import attend, visibility
from uno_jax.config import ConfigError
from uno_jax.data.config import DataConfig
from uno_jax.data.transforms import ImageTransform
from uno_jax.parallel.axes import MESH_AXES
from uno_jax.planning.chips import CHIPS, GIB, Slice, parse_slice
from uno_jax.planning.collectives import axes_of_groups, bytes_by_axes, bytes_by_kind, device_groups, find_collectives
from uno_jax.planning.example import example_row, missing_room
from uno_jax.planning.executed import executed_flops
from uno_jax.planning.hlo import parse_hlo
from uno_jax.planning.memory import exhausted_memory, split_state, tree_bytes
from uno_jax.planning.model_flops import model_flops
from uno_jax.planning.residuals import saved_activation_bytes
from uno_jax.planning.roofline import roofline
from uno_jax.planning.traffic import hbm_bytes
from uno_jax.training.initialise import abstract_params
from uno_jax.training.optimizer import OptimizerConfig, make_optimizer
from uno_jax.training.state import UNO_TRAINABLE, create_state, partition

X, W = jnp.zeros((8, 16)), jnp.zeros((16, 16))
PRODUCT = 2 * 8 * 16 * 16


def flops_of(function, *arguments) -> float:
    return executed_flops(jax.make_jaxpr(function)(*arguments)).total


def test_a_product_costs_two_flops_for_each_of_its_multiplications():
    assert flops_of(jnp.dot, X, W) == PRODUCT


def test_a_batched_product_costs_its_products():
    assert flops_of(lambda x: jnp.einsum("bqd,bkd->bqk", x, x), jnp.zeros((3, 5, 7))) == 2 * 3 * 5 * 5 * 7


def test_a_convolution_costs_its_kernel_at_every_output():
    def convolve(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    assert flops_of(convolve, jnp.zeros((2, 6, 6, 3)), jnp.zeros((3, 3, 3, 4))) == 2 * (2 * 6 * 6) * (3 * 3 * 3 * 4)


def test_the_body_of_a_scan_counts_as_often_as_it_runs():
    assert flops_of(lambda x, w: jax.lax.scan(lambda c, _: (c @ w, None), x, length=5), X, W) == 5 * PRODUCT


def test_a_backward_pass_of_a_frozen_weight_costs_as_much_as_the_forward_pass():
    assert flops_of(jax.grad(lambda x, w: jnp.sum((x @ w) ** 2)), X, W) == 2 * PRODUCT


def test_rematerialisation_counts_what_is_computed_again():
    def loss(x, w):
        body = jax.checkpoint(lambda x: jnp.sin(jnp.sin(x @ w) @ w), prevent_cse=False)
        return jnp.sum(jax.lax.scan(lambda c, _: (body(c), None), x, length=3)[0])

    # Twice the two products forward, and two gradients that pass through.
    assert flops_of(jax.grad(loss), X, W) == 3 * (2 + 2 + 2) * PRODUCT


def test_what_nobody_reads_is_not_counted():
    assert flops_of(lambda x, w: (x @ w, x)[1], X, W) == 0


def test_a_conditional_counts_its_dearest_branch():
    assert flops_of(lambda x, w: jax.lax.cond(x[0, 0] > 0, lambda: x @ w @ w, lambda: x @ w), X, W) == 2 * PRODUCT


def test_a_kernel_counts_its_alternatives_once_at_every_visited_point_of_its_grid():
    def kernel(x, out):
        def add():
            out[...] = x[...] @ x[...]

        pl.when(pl.program_id(0) == 0)(add)
        pl.when(pl.program_id(0) > 0)(add)

    def call(x):
        spec = pl.BlockSpec((4, 4), lambda i, j: (i, j))
        shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return pl.pallas_call(kernel, grid=(2, 3), in_specs=[spec], out_specs=spec, out_shape=shape, name="squares")(x)

    jaxpr = jax.make_jaxpr(call)(jnp.zeros((8, 12)))
    assert executed_flops(jaxpr).by_source == {"squares": 6 * 2 * 4**3}
    assert executed_flops(jaxpr, lambda name, grid: 0.5 if grid == (2, 3) else 1.0).total == 3 * 2 * 4**3


def test_a_kernel_whose_result_was_kept_is_not_counted_again():
    def double(x):
        def kernel(x, out):
            out[...] = x[...] @ x[...]

        return pl.pallas_call(kernel, out_shape=jax.ShapeDtypeStruct(x.shape, x.dtype), name="square")(x)

    jaxpr = jax.make_jaxpr(lambda x: (double(x), x)[1])(jnp.zeros((4, 4)))
    assert executed_flops(jaxpr).total == 0


def layers_loss(w, x):
    """Of as many layers as `w` has, each computed again in the backward pass, which needs its input."""
    layer = jax.checkpoint(lambda x, w: jnp.sin(x @ w), prevent_cse=False)
    return jnp.sum(jax.lax.scan(lambda c, w: (layer(c, w), None), x, w)[0])


FIVE_LAYERS = jnp.zeros((5, 16, 16))
ONE_DEVICE = dict.fromkeys(MESH_AXES, 1)


def test_saved_activations_are_what_the_backward_loop_reads_of_the_forward_loop():
    jaxpr = jax.make_jaxpr(jax.grad(layers_loss))(FIVE_LAYERS, X)
    assert saved_activation_bytes(jaxpr, ONE_DEVICE) == 5 * X.nbytes


def test_saved_activations_of_microbatches_are_those_of_one():
    def accumulated(w, micros):
        return jax.lax.scan(lambda total, x: (total + jax.grad(layers_loss)(w, x), None), jnp.zeros_like(w), micros)[0]

    jaxpr = jax.make_jaxpr(accumulated)(FIVE_LAYERS, jnp.stack([X, X, X]))
    assert saved_activation_bytes(jaxpr, ONE_DEVICE) == 5 * X.nbytes


def test_saved_activations_are_cut_by_rows_and_tokens_and_whole_over_tensor():
    jaxpr = jax.make_jaxpr(jax.grad(layers_loss))(FIVE_LAYERS, X)
    axes = {"data": 2, "fsdp": 2, "tensor": 4, "sequence": 2}
    assert saved_activation_bytes(jaxpr, axes) == 5 * X.nbytes // 8


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


def test_collectives_are_counted_by_mesh_axis_as_often_as_their_loop_runs():
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


def test_the_bound_of_a_loop_may_lie_in_a_fusion():
    compared = """%compared (i: s32[]) -> pred[] {
  %i = s32[] parameter(0)
  %most = s32[] constant(28)
  ROOT %l = pred[] compare(%i, %most), direction=LT
}

%condition ("""
    text = HLO.replace("compare(%counter, %bound), direction=LT", "fusion(%counter), kind=kLoop, calls=%compared")
    text = text.replace("%bound = s32[] constant(28)", "%bound = s32[] constant(1)")
    assert parse_hlo(text.replace("%condition (", compared, 1)).runs["body"] == 28


def test_collectives_between_slices_are_told_apart():
    collectives = find_collectives(parse_hlo(HLO), AXES, slice_of=[0] * 4 + [1] * 4)
    assert set(bytes_by_axes(collectives)) == {"fsdp", "data across slices"}


def test_what_the_runtime_sends_between_slices_is_counted():
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


def test_a_loop_runs_as_often_as_its_step_fits_between_start_and_bound_with_the_last_step_whole():
    started = STEPPING.replace("%zero = s32[] constant(0)", "%first = s32[] constant(1)\n  %zero = s32[] copy(%first)")
    assert parse_hlo(started).runs["body"] == 14  # 1, 3, ... 27
    assert parse_hlo(STEPPING.replace("constant(28)", "constant(27)")).runs["body"] == 14


def test_an_iteration_that_runs_ahead_of_its_loop_counts_with_those_of_the_loop():
    """The compiler takes the first out of the loop: there the same collective is on the same channel once more."""
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


def test_a_collective_that_runs_beside_other_steps_counts_once():
    """Started by one fusion, carried on in another that computes, ended by a third; all say the whole collective."""
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


def test_traffic_counts_slices_of_stacked_layers_and_nothing_on_chip():
    # The loop reads a layer's slice and writes what it gathers; the sum after it reads and writes an array.
    assert hbm_bytes(parse_hlo(HLO)) == 28 * (2 * 128 * 4 + ARRAY) + 2 * ARRAY


@pytest.mark.parametrize(
    ("text", "axes"),
    [
        ("replica_groups={{0,1,2,3},{4,5,6,7}}", ("fsdp",)),
        ("replica_groups=[4,2]<=[2,4]T(1,0)", ("data",)),
        ("replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_1'}", ("fsdp",)),
        ("replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_0','axis_1'}", ("data", "fsdp")),
        ("replica_groups={}", ("data", "fsdp")),
        ("source_target_pairs={{0,1},{1,2},{2,3},{3,0}}", ("fsdp",)),
    ],
)
def test_groups_are_read_in_every_notation(text, axes):
    assert axes_of_groups(device_groups(text, 8), AXES) == axes


def test_a_real_program_of_one_device_moves_nothing_between_devices():
    program = parse_hlo(
        jax.jit(lambda x: jax.lax.scan(lambda c, _: (c @ W, None), x, length=4)[0]).lower(X).compile().as_text()
    )
    assert find_collectives(program, {"fsdp": 1}) == []
    assert max(program.runs.values()) == 4


def test_memory_of_a_state_is_split_by_part_dtype_and_place():
    mesh = Mesh(np.array(jax.devices()[:1]), ("fsdp",))
    place = NamedSharding(mesh, PartitionSpec())
    params = {"trained": {"kernel": jnp.zeros((64, 32))}, "fixed": {"kernel": jnp.zeros((16, 16), jnp.bfloat16)}}
    optimizer = make_optimizer(OptimizerConfig(moment_dtype="bfloat16"), 10)
    state = jax.eval_shape(lambda params: create_state(params, ("trained",), optimizer, ema=True), params)
    state = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), state)
    split = split_state(state)
    weights = 64 * 32
    assert split["trainable parameters"] == split["EMA"] == split["gradients"] == 4 * weights
    assert split["frozen parameters"] == 16 * 16 * 2
    assert split["optimizer"] == 2 * 2 * weights + 8  # two moments, two counters


def test_a_leaf_in_host_memory_is_no_memory_of_the_chip():
    mesh = Mesh(np.array(jax.devices()[:1]), ("fsdp",))
    leaf = jax.ShapeDtypeStruct(
        (8,), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec(), memory_kind="pinned_host")
    )
    assert (tree_bytes(leaf), tree_bytes(leaf, host=True)) == (0, 32)


def test_a_program_that_does_not_fit_says_how_much_it_needs():
    sentence = (
        "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 17.82G of 15.75G hbm. Exceeded by 2.07G."
    )
    memory = exhausted_memory(RuntimeError(sentence))
    assert not memory.fits
    assert memory.peak == pytest.approx(17.82 * GIB, abs=1)
    assert exhausted_memory(RuntimeError("INTERNAL: something else")) is None


def data(**changes) -> DataConfig:
    square = ImageTransform(32, 32, 8)
    lengths = {"text_tokens": 32, "vit_tokens": 16, "caption_tokens": 16, "query_tokens": 4, "latent_tokens": 32}
    return DataConfig(
        method="uno",
        **lengths | changes,
        vae_transform=square,
        vit_transform=square,
        metaquery_transform=ImageTransform(8, 8, 4),
    )


def test_a_row_is_taken_to_be_full_of_the_largest_samples():
    example = example_row(data(), small_model())
    assert example.images == 1  # the latents would hold two, the queries one
    assert example.tokens() == {"text": 32, "vit": 0, "caption": 16, "query": 4, "latent": 16}


@pytest.mark.parametrize("axes", [{}, {"sequence": 2}, {"sequence": 3}, {"tensor": 2}, {"tensor": 4}])
def test_blocks_are_those_of_the_kernel_on_one_device(axes):
    """1152 tokens of understanding and 32 of generation, of which three devices get the latter whole."""
    decoder, example = small_model().decoder, example_row(data(text_tokens=1116), small_model())
    mesh = AbstractMesh(tuple((ONE_DEVICE | axes).values()), MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))
    buffers = [jax.tree.map(jnp.asarray, x) for x in (example.row.understanding, example.row.generation)]

    def heads(count: int) -> list:
        return [jnp.zeros((1, buffer.sample.shape[1], count, decoder.head_dim)) for buffer in buffers]

    def run():
        keys = heads(decoder.num_kv_heads)
        return attend(heads(decoder.num_heads), keys, keys, visibility(buffers, buffers, "kernel"))

    grids = []
    with jax.sharding.use_abstract_mesh(mesh):
        executed_flops(jax.make_jaxpr(run)(), lambda name, grid: grids.append(grid) or 1.0)
    assert [grid[-2:] for grid in grids] == [example.visited_share(decoder, mesh.shape)[0]]


def test_the_share_that_is_computed_is_the_average_over_the_parts_of_the_queries():
    """Causal text, and at its end tokens that see all of it; blocks of 512 keys. Whole: 512 queries, that see 1, 2, 3
    blocks. In two parts: 384 queries, 1 and 3 (the part's share of the latents comes after its text), 2 and 3."""
    decoder, example = small_model().decoder, example_row(data(text_tokens=1116), small_model())
    whole, of_two = (example.visited_share(decoder, ONE_DEVICE | {"sequence": size}) for size in (1, 2))
    assert whole == ((3, 3), pytest.approx(6 / 9))
    assert of_two == ((2, 3), pytest.approx(9 / 12))


def test_a_row_that_holds_no_sample_is_an_error_that_says_which_region():
    with pytest.raises(ConfigError, match="config.data.latent_tokens is 8"):
        example_row(data(latent_tokens=8), small_model())


def test_every_region_that_is_too_short_is_named_at_once():
    with pytest.raises(ConfigError, match=r"query_tokens is 1,.* takes 4;.*latent_tokens is 8"):
        example_row(data(latent_tokens=8, query_tokens=1), small_model())


def test_an_edit_takes_room_for_its_source_and_leaves_other_regions_alone():
    narrow = dataclasses.replace(data(latent_tokens=16, vit_tokens=0), vit_transform=ImageTransform(8, 8, 4))
    missing = missing_room(narrow, small_model(), "editing")
    assert missing == {"latent_tokens": 32, "vit_tokens": 4}
    assert example_row(dataclasses.replace(narrow, **missing), small_model(), "editing").images == 1
    assert missing_room(narrow, small_model(), "text_to_image") == {}


def test_model_flops_by_hand():
    model, example = small_model(), example_row(data(), small_model())
    trainable, frozen = partition(abstract_params(model), UNO_TRAINABLE)
    needed = model_flops(trainable, frozen, example, model)
    layer = 32 * 32 + 2 * 32 * 16 + 32 * 32 + 3 * 32 * 48
    assert needed["generation expert"] == 6 * 16 * 2 * layer
    assert needed["understanding expert"] == 4 * (32 + 16 + 4) * 2 * layer
    assert needed["embedding and vocabulary head"] == 4 * 16 * 32 * model.decoder.vocab_size
    # Prompt 30 (causal), its two delimiters and 16 latents that see all of these; caption; queries.
    pairs = 30 * 31 // 2 + 18 * 48 + (16 * 18 + 16 * 17 // 2) + 4 * (18 + 4)
    assert needed["attention"] == 12 * pairs * 2 * 4 * 8


def test_the_longest_time_is_the_bound():
    target = parse_slice("2xv5e:4x4")
    bound = roofline(
        target, flops=32 * 197e12, hbm_bytes=2 * 819e9, collective_bytes={"data across slices": 3 * 3.125e9}
    )
    assert (bound.arithmetic, bound.memory, bound.network) == pytest.approx((1, 2, 3))
    assert bound.bound_by == "network"
    assert bound.seconds == pytest.approx(3)


def test_slices_are_read_with_their_shape_and_number():
    assert parse_slice("2xv5e:16x16") == Slice(CHIPS["v5e"], (16, 16), 2)
    assert parse_slice("v5p:2x2x2").chips == 8
    with pytest.raises(ConfigError, match="expected KIND:AxB"):
        parse_slice("v5e-16")


@pytest.mark.parametrize(
    ("text", "right"), [("v5e:4", "v5e:2x2 has 4"), ("v5p:4x4", "v5p:2x2x2 has 8"), ("v5e:0x4", "2x2")]
)
def test_a_slice_of_the_wrong_shape_is_an_error_that_shows_a_right_one(text, right):
    with pytest.raises(ConfigError, match=right):
        parse_slice(text)


def test_a_chip_at_the_end_of_a_line_has_one_link_along_it_and_two_in_a_ring():
    v5e = CHIPS["v5e"]
    assert dataclasses.replace(parse_slice("v5e:4x4")).ici_bandwidth == 2 * v5e.link_bandwidth
    assert parse_slice("v5e:16x16").ici_bandwidth == 4 * v5e.link_bandwidth
