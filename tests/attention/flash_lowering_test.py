"""What a GPU gets for flash attention: programs lowered for CUDA on any machine, and the calls and arrays in them."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import pytest

from tests.helpers.cuda_programs import calls, gpu_mesh, install_cudnn, shapes
from uno_jax.attention.attend import attend, chosen, visibility
from uno_jax.attention.metadata import TokenMetadata, whole_images
from uno_jax.models.decoder import REMAT_POLICIES
from uno_jax.parallel.axes import on_mesh

HEADS, KV_HEADS, HEAD_DIM = 6, 2, 128
TOKENS = 384


@pytest.fixture(autouse=True)
def a_machine_with_cudnn(monkeypatch):
    install_cudnn(monkeypatch)


def lowered(function: Callable, *arguments) -> str:
    """StableHLO of a function on one H100."""
    return jax.jit(on_mesh(gpu_mesh())(function)).trace(*arguments).lower(lowering_platforms=("cuda",)).as_text()


def heads(count: int, tokens: int = TOKENS, dtype=jnp.bfloat16, head_dim: int = HEAD_DIM, rows: int = 2) -> jax.Array:
    return jax.ShapeDtypeStruct((rows, tokens, count, head_dim), dtype)


def metadata(tokens: int = TOKENS, rows: int = 2) -> TokenMetadata:
    return TokenMetadata(*[jax.ShapeDtypeStruct((rows, tokens), jnp.int32)] * len(TokenMetadata._fields))


def attention(query, key, value, tokens, all_valid=False, implementation="auto"):
    seen = visibility((tokens,), (tokens,), implementation, query.dtype, all_valid=all_valid)
    return attend((query,), (key,), (value,), seen)[0]


def loss(*arguments, **options):
    return jnp.sum(attention(*arguments, **options).astype(jnp.float32) ** 2)


DECODER = (heads(HEADS), heads(KV_HEADS), heads(KV_HEADS), metadata())


@pytest.mark.parametrize(
    ("dtype", "expected"), [(jnp.bfloat16, "flash"), (jnp.float16, "flash"), (jnp.float32, "dense")]
)
def test_auto_is_flash_on_a_gpu_in_low_precision(dtype, expected):
    with on_mesh(gpu_mesh()):
        assert chosen("auto", dtype) == expected


def test_training_holds_a_mask_of_all_heads_but_no_scores():
    program = lowered(jax.grad(loss, argnums=(0, 1, 2)), *DECODER)
    assert calls(program) == (1, 1)
    assert (2, 1, TOKENS, TOKENS) in shapes(program)
    assert not [shape for shape in shapes(program) if shape.count(TOKENS) == 2 and HEADS in shape]


def test_sampling_holds_no_array_of_queries_and_keys():
    program = lowered(lambda *arrays: attention(*arrays, all_valid=True), *DECODER)
    assert calls(program) == (1, 0)
    assert r"mask_type\22: \22PADDING\22" in program
    assert not [shape for shape in shapes(program) if shape.count(TOKENS) == 2]


def test_odd_lengths_are_padded_to_even_ones_for_gradients_with_a_mask():
    arrays = (heads(HEADS, 383), heads(KV_HEADS, 383), heads(KV_HEADS, 383), metadata(383))
    assert (2, 1, 384, 384) in shapes(lowered(jax.grad(loss), *arrays))


def test_heads_of_the_vision_encoder_are_not_padded():
    heads_of_72 = [heads(2, head_dim=72)] * 3
    program = lowered(jax.grad(loss), *heads_of_72, metadata())
    assert calls(program) == (1, 1)
    assert (2, 2, TOKENS, 72) in shapes(program)


def test_the_head_of_the_autoencoder_is_computed_in_parts():
    """cuDNN takes heads of at most 128, or 256."""
    tokens = 128 * 128
    one_head = [heads(1, tokens, head_dim=512, rows=1)] * 3

    def middle(*arrays):
        return attention(*arrays, whole_images(jnp.ones((1, 1), jnp.int32)))

    program = lowered(middle, *one_head)
    assert calls(program) == (0, 0)
    assert (1, 1, 2**12, tokens) in shapes(program)
    assert not [shape for shape in shapes(program) if shape.count(tokens) == 2]


def test_float32_is_computed_by_dense_attention():
    arrays = [heads(count, dtype=jnp.float32) for count in (HEADS, KV_HEADS, KV_HEADS)]
    program = lowered(loss, *arrays, metadata())
    assert calls(program) == (0, 0)
    assert [shape for shape in shapes(program) if shape.count(TOKENS) == 2 and len(shape) > 3]


def test_a_few_queries_as_in_the_generation_of_text_need_no_cudnn():
    one, tokens = heads(HEADS, 1), metadata()

    def next_token(query, key, value, tokens):
        last = TokenMetadata(*(x[:, -1:] for x in tokens))
        return attend((query,), (key,), (value,), visibility((last,), (tokens,), "auto", query.dtype))[0]

    assert calls(lowered(next_token, one, heads(KV_HEADS), heads(KV_HEADS), tokens)) == (0, 0)


@pytest.mark.parametrize(("policy", "times"), [("full", 2), ("save_attention", 1), ("dots", 1)])
def test_a_remat_policy_can_save_the_output_of_cudnn_for_the_backward_pass(policy, times):
    def layer(query, key, value, tokens):
        return loss(jnp.sin(query), jnp.sin(key), jnp.sin(value), tokens)

    again = jax.checkpoint(layer, policy=REMAT_POLICIES[policy])
    assert calls(lowered(jax.value_and_grad(again), *DECODER)) == (times, 1)


def test_each_gpu_attends_to_its_own_rows_and_heads():
    mesh = gpu_mesh(data=2, tensor=2)
    program = jax.jit(on_mesh(mesh)(attention)).trace(*DECODER).lower(lowering_platforms=("cuda",)).as_text()
    assert (1, HEADS // 2, TOKENS, HEAD_DIM) in shapes(program)
