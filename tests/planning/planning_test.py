"""The numbers of an estimate: FLOPs of a jaxpr, tokens and attention blocks of a row, memory and time."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from tests.helpers.small_model import small_model
from uno_jax.attention.attend import attend, visibility
from uno_jax.attention.kernel import default_blocks, kernel_attention
from uno_jax.attention.metadata import TokenMetadata
from uno_jax.batch import Batch
from uno_jax.config import ConfigError
from uno_jax.data.config import DataConfig, PartConfig
from uno_jax.data.transforms import ImageTransform
from uno_jax.models.decoder import REMAT_POLICIES
from uno_jax.parallel.axes import MESH_AXES
from uno_jax.planning.chips import CHIPS, GIB, Slice, parse_slice
from uno_jax.planning.estimate import trace
from uno_jax.planning.executed import executed_flops
from uno_jax.planning.largest_row import abstract_batch, example_row, missing_room
from uno_jax.planning.memory import exhausted_memory, is_exhausted, split_state, tree_bytes
from uno_jax.planning.model_flops import model_flops
from uno_jax.planning.residuals import saved_activation_bytes
from uno_jax.planning.roofline import roofline
from uno_jax.run.config import RunConfig
from uno_jax.training.initialise import abstract_params
from uno_jax.training.optimizer import OptimizerConfig, make_optimizer
from uno_jax.training.state import UNO_TRAINABLE, create_state, partition

X, W = jnp.zeros((8, 16)), jnp.zeros((16, 16))
PRODUCT = 2 * 8 * 16 * 16


def flops_of(function, *arguments) -> float:
    return executed_flops(jax.make_jaxpr(function)(*arguments)).total


def test_a_matrix_product_takes_two_flops_per_multiplication():
    assert flops_of(jnp.dot, X, W) == PRODUCT


def test_a_batched_product_counts_every_batch_element():
    assert flops_of(lambda x: jnp.einsum("bqd,bkd->bqk", x, x), jnp.zeros((3, 5, 7))) == 2 * 3 * 5 * 5 * 7


def test_a_convolution_counts_its_kernel_at_every_output():
    def convolve(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    assert flops_of(convolve, jnp.zeros((2, 6, 6, 3)), jnp.zeros((3, 3, 3, 4))) == 2 * (2 * 6 * 6) * (3 * 3 * 3 * 4)


def test_the_body_of_a_scan_counts_once_per_iteration():
    assert flops_of(lambda x, w: jax.lax.scan(lambda c, _: (c @ w, None), x, length=5), X, W) == 5 * PRODUCT


def test_the_backward_pass_of_a_frozen_weight_costs_as_much_as_the_forward_pass():
    assert flops_of(jax.grad(lambda x, w: jnp.sum((x @ w) ** 2)), X, W) == 2 * PRODUCT


def test_recomputed_products_of_rematerialisation_count():
    def loss(x, w):
        body = jax.checkpoint(lambda x: jnp.sin(jnp.sin(x @ w) @ w), prevent_cse=False)
        return jnp.sum(jax.lax.scan(lambda c, _: (body(c), None), x, length=3)[0])

    # The two products forward and again in the backward pass, and the gradients of their inputs.
    assert flops_of(jax.grad(loss), X, W) == 3 * (2 + 2 + 2) * PRODUCT


def test_dead_code_is_not_counted():
    assert flops_of(lambda x, w: (x @ w, x)[1], X, W) == 0


def test_a_conditional_counts_its_most_expensive_branch():
    assert flops_of(lambda x, w: jax.lax.cond(x[0, 0] > 0, lambda: x @ w @ w, lambda: x @ w), X, W) == 2 * PRODUCT


def test_a_kernel_counts_one_of_its_alternatives_at_every_visited_grid_point():
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


def test_a_kernel_with_an_unused_result_is_not_counted():
    def double(x):
        def kernel(x, out):
            out[...] = x[...] @ x[...]

        return pl.pallas_call(kernel, out_shape=jax.ShapeDtypeStruct(x.shape, x.dtype), name="square")(x)

    jaxpr = jax.make_jaxpr(lambda x: (double(x), x)[1])(jnp.zeros((4, 4)))
    assert executed_flops(jaxpr).total == 0


def layers_loss(w, x, remat="full"):
    """Loss of a stack of layers, one per entry of `w`, each rematerialised from its input in the backward pass."""
    again = functools.partial(jax.checkpoint, policy=REMAT_POLICIES[remat], prevent_cse=False)
    layer = again(lambda x, w: jnp.sin(checkpoint_name(x, "layer_input") @ w))
    return jnp.sum(jax.lax.scan(lambda c, w: (layer(c, w), None), x, w)[0])


FIVE_LAYERS = jnp.zeros((5, 16, 16))
ONE_DEVICE = dict.fromkeys(MESH_AXES, 1)


def test_saved_activations_are_outputs_of_the_forward_loop_read_by_the_backward_loop():
    jaxpr = jax.make_jaxpr(jax.grad(layers_loss))(FIVE_LAYERS, X)
    assert saved_activation_bytes(jaxpr, ONE_DEVICE) == 5 * X.nbytes


def test_activations_offloaded_to_host_memory_do_not_count():
    jaxpr = jax.make_jaxpr(jax.grad(functools.partial(layers_loss, remat="offload")))(FIVE_LAYERS, X)
    assert saved_activation_bytes(jaxpr, ONE_DEVICE) == 0


def test_saved_activations_of_one_microbatch_count():
    def accumulated(w, micros):
        return jax.lax.scan(lambda total, x: (total + jax.grad(layers_loss)(w, x), None), jnp.zeros_like(w), micros)[0]

    jaxpr = jax.make_jaxpr(accumulated)(FIVE_LAYERS, jnp.stack([X, X, X]))
    assert saved_activation_bytes(jaxpr, ONE_DEVICE) == 5 * X.nbytes


def test_saved_activations_are_sharded_by_rows_and_tokens_and_replicated_over_tensor():
    jaxpr = jax.make_jaxpr(jax.grad(layers_loss))(FIVE_LAYERS, X)
    axes = {"data": 2, "fsdp": 2, "tensor": 4, "sequence": 2}
    assert saved_activation_bytes(jaxpr, axes) == 5 * X.nbytes // 8


def test_the_memory_of_a_state_is_listed_by_part():
    mesh = Mesh(np.array(jax.devices()[:1]), ("fsdp",))
    place = NamedSharding(mesh, PartitionSpec())
    params = {"trained": {"kernel": jnp.zeros((64, 32))}, "fixed": {"kernel": jnp.zeros((16, 16), jnp.bfloat16)}}
    optimizer = make_optimizer(OptimizerConfig(moment_dtype="bfloat16"), 10)
    state = jax.eval_shape(
        lambda params: create_state(params, ("trained",), optimizer, ema=True, anchor="bfloat16"), params
    )
    state = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), state)
    split = split_state(state)
    weights = 64 * 32
    assert split["trainable parameters"] == split["EMA"] == split["gradients"] == 4 * weights
    assert split["frozen parameters"] == 16 * 16 * 2
    assert split["starting model"] == 2 * weights
    assert split["optimizer"] == 2 * 2 * weights + 8  # two moments, two counters


def test_a_leaf_in_host_memory_takes_no_memory_of_the_chip():
    mesh = Mesh(np.array(jax.devices()[:1]), ("fsdp",))
    leaf = jax.ShapeDtypeStruct(
        (8,), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec(), memory_kind="pinned_host")
    )
    assert (tree_bytes(leaf), tree_bytes(leaf, host=True)) == (0, 32)


def test_the_memory_need_of_a_program_that_does_not_fit_is_read_from_the_error():
    message = "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 17.82G of 15.75G hbm. Exceeded by 2.07G."
    assert is_exhausted(message)
    memory = exhausted_memory(message, autoencoder=GIB)
    assert not memory.fits
    assert memory.peak == pytest.approx(18.82 * GIB, abs=1)


@pytest.mark.parametrize(
    "message",
    [
        "INTERNAL: something else",
        "RESOURCE_EXHAUSTED: Ran out of memory in memory space vmem. Used 70.00M of 64.00M vmem. Exceeded by 6.00M.",
    ],
)
def test_other_compiler_errors_do_not_mean_that_a_program_does_not_fit(message):
    assert not is_exhausted(message)


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


def test_a_row_is_filled_with_the_largest_samples():
    example = example_row(data(), small_model())
    assert example.images == 1  # the latent region holds two samples, the query region one
    assert example.tokens() == {"text": 32, "vit": 0, "caption": 16, "query": 4, "latent": 16}


@pytest.mark.parametrize("axes", [{}, {"sequence": 2}, {"sequence": 3}, {"tensor": 2}, {"tensor": 4}])
def test_block_grids_equal_those_of_the_kernel_on_one_device(axes):
    """1152 understanding and 32 generation tokens. The latter are not divisible by three and therefore replicated."""
    decoder, example = small_model().decoder, example_row(data(text_tokens=1116), small_model())
    mesh = AbstractMesh(tuple((ONE_DEVICE | axes).values()), MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))
    buffers = [jax.tree.map(jnp.asarray, x) for x in (example.row.understanding, example.row.generation)]

    def heads(count: int) -> list:
        return [jnp.zeros((1, buffer.sample.shape[1], count, decoder.head_dim)) for buffer in buffers]

    def run():
        keys = heads(decoder.num_kv_heads)
        return attend(heads(decoder.num_heads), keys, keys, visibility(buffers, buffers, "kernel", jnp.bfloat16))

    grids = []
    with jax.sharding.use_abstract_mesh(mesh):
        executed_flops(jax.make_jaxpr(run)(), lambda name, grid: grids.append(grid) or 1.0)
    assert {grid[-2:] for grid in grids} == example.visited_share(decoder, mesh.shape)[0]


def test_block_grids_equal_those_of_the_kernel_with_several_backward_sweeps():
    """1184 tokens are three blocks of 512 keys. One sweep takes two of them."""
    model, example = small_model(), example_row(data(text_tokens=1116), small_model())
    metadata = jax.tree.map(jnp.asarray, example.metadata)
    query, key = (jnp.zeros((1, 1184, heads, model.decoder.head_dim)) for heads in (4, 2))
    group = model.decoder.num_heads // model.decoder.num_kv_heads
    blocks = dataclasses.replace(default_blocks(1184, 1184, group, model.decoder.head_dim), sweep=2)

    def loss(query, key):
        return jnp.sum(kernel_attention(query, key, key, metadata, metadata, blocks=blocks))

    grids: dict[str, list] = {}
    jaxpr = jax.make_jaxpr(jax.grad(loss))(query, key)
    executed_flops(jaxpr, lambda name, grid: grids.setdefault(name, []).append(grid[-2:]) or 1.0)
    assert sorted(grids["attention_backward"]) == [(3, 1), (3, 2)]
    assert example.visited_share(model.decoder, ONE_DEVICE, blocks)[0] == {(3, 3), (3, 2), (3, 1)}


def test_the_share_of_computed_blocks_is_averaged_over_the_shards_of_the_queries():
    """Causal text followed by tokens that see all of it, in blocks of 512 keys.

    Without sharding, three blocks of 512 queries see 1, 2 and 3 blocks of keys. With two shards, blocks of 384 queries
    see 1 and 3 (the shard's latents follow its text), and 2 and 3.
    """
    decoder, example = small_model().decoder, example_row(data(text_tokens=1116), small_model())
    one_shard, two_shards = (example.visited_share(decoder, ONE_DEVICE | {"sequence": size}) for size in (1, 2))
    assert one_shard == ({(3, 3)}, pytest.approx(6 / 9))
    assert two_shards == ({(2, 3)}, pytest.approx(9 / 12))


def test_too_many_attention_blocks_on_a_chip_are_a_config_error():
    tokens = jax.ShapeDtypeStruct((8, 65536, 1, 128), jnp.bfloat16)
    metadata = TokenMetadata(*[jax.ShapeDtypeStruct((8, 65536), jnp.int32)] * len(TokenMetadata._fields))
    with pytest.raises(ConfigError, match="8 x 65536 queries and 65536 keys on one device"):
        trace(jax.jit(kernel_attention), tokens, tokens, tokens, metadata, metadata)


def test_a_row_too_short_for_a_sample_is_an_error_that_names_the_region():
    with pytest.raises(ConfigError, match="config.data.latent_tokens is 8"):
        example_row(data(latent_tokens=8), small_model())


def test_all_regions_that_are_too_short_are_named_in_one_error():
    with pytest.raises(ConfigError, match=r"query_tokens is 1,.* takes 4;.*latent_tokens is 8"):
        example_row(data(latent_tokens=8, query_tokens=1), small_model())


def test_an_edit_lengthens_only_the_regions_of_its_source_image():
    narrow = dataclasses.replace(data(latent_tokens=16, vit_tokens=0), vit_transform=ImageTransform(8, 8, 4))
    missing = missing_room(narrow, small_model(), "editing")
    assert missing == {"latent_tokens": 32, "vit_tokens": 4}
    assert example_row(dataclasses.replace(narrow, **missing), small_model(), "editing").images == 1
    assert missing_room(narrow, small_model(), "text_to_image") == {}


def test_reconstructions_have_the_patches_of_their_target_as_context():
    reca = dataclasses.replace(data(vit_tokens=8), method="reca", vit_transform=ImageTransform(8, 8, 4))
    example = example_row(reca, small_model())
    assert example.images == 2
    assert example.tokens() == {"text": 2 * 4, "vit": 2 * 4, "caption": 0, "query": 0, "latent": 2 * 16}


def test_model_flops_by_hand():
    model, example = small_model(), example_row(data(), small_model())
    trainable, frozen = partition(abstract_params(model), UNO_TRAINABLE)
    needed = model_flops(trainable, frozen, example, model)
    layer = 32 * 32 + 2 * 32 * 16 + 32 * 32 + 3 * 32 * 48
    assert needed["generation expert"] == 6 * 16 * 2 * layer
    assert needed["understanding expert"] == 4 * (32 + 16 + 4) * 2 * layer
    assert needed["embedding and vocabulary head"] == 4 * 16 * 32 * model.decoder.vocab_size
    # 30 prompt tokens (causal); two delimiters and 16 latents that see all 48; the caption; the queries.
    pairs = 30 * 31 // 2 + 18 * 48 + (16 * 18 + 16 * 17 // 2) + 4 * (18 + 4)
    assert needed["attention"] == 12 * pairs * 2 * 4 * 8


def flops_of_model(model, example, trained: tuple[str, ...] = UNO_TRAINABLE, **changes) -> dict[str, float]:
    return model_flops(*partition(abstract_params(model), trained), example, model, **changes)


def test_the_vocabulary_head_counts_context_text_if_answers_are_trained():
    model, example = small_model(), example_row(data(), small_model())
    head = flops_of_model(model, example, needs={"answers"})["embedding and vocabulary head"]
    assert head == 4 * (16 + 32) * 32 * model.decoder.vocab_size


def test_the_align_loss_costs_its_head_and_a_vision_patch_per_latent_token():
    model = small_model(align_layer=1)
    example = example_row(data(), model)
    without, aligned = flops_of_model(model, example), flops_of_model(model, example, needs={"align"})
    assert "head of the align loss" not in without
    assert aligned["head of the align loss"] == 6 * 16 * (32 * 32 + 32 * 16)
    layer = 4 * 16 * 16 + 2 * 16 * 24
    vision = 2 * 16 * (48 * 16 + 2 * layer) + 4 * 16**2 * 2 * 16
    assert aligned["vision encoder"] - without["vision encoder"] == vision


def test_the_anchor_loss_costs_a_forward_pass_without_captions_and_metaqueries():
    model, example = small_model(), example_row(data(), small_model())
    layer = 32 * 32 + 2 * 32 * 16 + 32 * 32 + 3 * 32 * 48
    pairs = 30 * 31 // 2 + 18 * 48
    latent = 2 * 192 * 32 + 256 * 32 + 32 * 32
    expected = 2 * (32 + 16) * 2 * layer + 2 * 16 * latent + 4 * pairs * 2 * 4 * 8
    assert flops_of_model(model, example, needs={"start"})["starting model"] == expected


def test_a_trained_vision_encoder_costs_three_times_a_frozen_one_except_for_targets():
    model = small_model()
    edit = example_row(dataclasses.replace(data(), vit_transform=ImageTransform(8, 8, 4)), model, "editing")
    picture = example_row(data(), model)  # has patches of its target only
    frozen, trained = (
        [flops_of_model(model, row, parts)["vision encoder"] for row in (edit, picture)]
        for parts in (UNO_TRAINABLE, ("vision",))
    )
    assert trained[1] == frozen[1]
    assert trained[0] - trained[1] == 3 * (frozen[0] - frozen[1])


def test_with_precomputed_features_the_vision_encoder_costs_nothing_and_all_else_the_same():
    model, example = small_model(metaquery_target="connector"), example_row(data(), small_model())
    without = flops_of_model(model, example)
    assert without.pop("vision encoder") > 0
    assert flops_of_model(model, example, features=True) == without


def planned_batch(**changes: Any) -> Batch:
    mesh = Mesh(np.array(jax.devices()[:1]).reshape(1, 1, 1, 1), MESH_AXES)
    config = RunConfig(model=small_model(compute_dtype="bfloat16"), data=dataclasses.replace(data(), **changes))
    return abstract_batch(config, mesh)


def test_the_batch_of_a_plan_has_pixels_under_patches_and_moments_under_latents():
    batch = planned_batch()
    assert (batch.vit_patches.shape, batch.vit_patches.dtype) == ((8, 16, 4 * 4 * 3), np.uint8)
    assert (batch.latent_moments.shape, batch.latent_moments.dtype) == ((8, 32, 2 * 192), np.float32)
    assert batch.text_dataset is None


def test_the_batch_of_a_plan_has_features_if_the_run_reads_them():
    batch = planned_batch(features="features", encoded="moments")
    for patches in (batch.vit_patches, batch.target_patches):
        assert (patches.shape[-1], patches.dtype) == (16, jnp.bfloat16)
    assert batch.latent_moments.shape == planned_batch().latent_moments.shape


def test_the_tokens_of_a_plan_state_their_dataset_if_there_are_several():
    batch = planned_batch(mixture={"one": PartConfig("a", features="f"), "two": PartConfig("b", features="g")})
    assert batch.text_dataset is not None
    assert batch.latent_source.dataset.shape == (8, 32)
    assert batch.vit_patches.dtype == jnp.bfloat16


def test_the_connector_counts_target_patches_if_the_targets_are_its_outputs():
    model, example = small_model(metaquery_target="connector"), example_row(data(), small_model())
    assert "connector" not in flops_of_model(small_model(), example)
    assert flops_of_model(model, example)["connector"] == 2 * 4 * (16 * 32 + 32 * 32)


def test_the_roofline_is_the_longest_time():
    target = parse_slice("2xv5e:4x4")
    bound = roofline(
        target, flops=32 * 197e12, hbm_bytes=2 * 819e9, collective_bytes={"data across slices": 3 * 3.125e9}
    )
    assert (bound.arithmetic, bound.memory, bound.network) == pytest.approx((1, 2, 3))
    assert bound.bound_by == "network"
    assert bound.seconds == pytest.approx(3)


def test_a_topology_is_parsed_into_chip_shape_and_number_of_slices():
    assert parse_slice("2xv5e:16x16") == Slice(CHIPS["v5e"], (16, 16), 2)
    assert parse_slice("v5p:2x2x2").chips == 8
    with pytest.raises(ConfigError, match="expected KIND:AxB"):
        parse_slice("v5e-16")


@pytest.mark.parametrize(
    ("text", "right"), [("v5e:4", r"v5e:2x2 \(4 chips"), ("v5p:4x4", r"v5p:2x2x2 \(8 chips"), ("v5e:0x4", "2x2")]
)
def test_a_slice_of_invalid_shape_is_an_error_with_a_valid_example(text, right):
    with pytest.raises(ConfigError, match=right):
        parse_slice(text)


def test_a_chip_has_one_link_at_the_end_of_a_line_and_two_in_a_ring():
    v5e = CHIPS["v5e"]
    assert parse_slice("v5e:4x4").ici_bandwidth == 2 * v5e.link_bandwidth
    assert parse_slice("v5e:8x16").ici_bandwidth == 3 * v5e.link_bandwidth
    assert parse_slice("v5e:16x16").ici_bandwidth == 4 * v5e.link_bandwidth


def test_axes_of_a_v5p_are_rings_only_in_slices_of_full_cubes():
    v5p = CHIPS["v5p"]
    assert parse_slice("v5p:2x4x4").ici_bandwidth == 3 * v5p.link_bandwidth
    assert parse_slice("v5p:4x4x8").ici_bandwidth == 6 * v5p.link_bandwidth
