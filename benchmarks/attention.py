"""The attention kernel compiled for TPUs: memory, comparison with alternatives, and share of visited blocks.

    python benchmarks/attention.py --chip=v5e              the kernel at full size, forward and backward
    python benchmarks/attention.py --chip=v5e --compare    the kernel, dense attention and JAX's splash attention
    python benchmarks/attention.py --shares                visited blocks of typical rows

Needs libtpu (requirements-tpu.txt), but no TPU. Prints Markdown tables.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
from jax.sharding import SingleDeviceSharding

sys.path.append(str(Path(__file__).parent.parent))  # for a script only its own folder is on the path

from configs.tpu.text_to_image import with_rows
from uno_jax.attention.block_map import NOTHING, SOMETHING, Blocks, block_states, pad_tokens
from uno_jax.attention.dense import dense_attention
from uno_jax.attention.kernel import default_blocks, kernel_attention
from uno_jax.attention.metadata import TokenMetadata, pairwise_visible
from uno_jax.config import from_config_dict
from uno_jax.planning.chips import describe_devices, parse_slice
from uno_jax.planning.largest_row import example_row
from uno_jax.run.config import RunConfig

SLICES = {"v5e": "v5e:2x2", "v5p": "v5p:2x2x1", "v6e": "v6e:2x2"}


@dataclass(frozen=True)
class Case:
    """Sizes of one self-attention: every token is a query and a key."""

    batch: int
    tokens: int
    heads: int
    kv_heads: int
    head_dim: int
    dtype: str = "bfloat16"
    backward: bool = True


CASES = {
    "decoder, one image": Case(1, 4864, 28, 4, 128),
    "decoder, four images in a row": Case(1, 4 * 4864, 28, 4, 128),
    "decoder, a row of 65,536 tokens": Case(1, 65536, 28, 4, 128),
    "decoder, float32": Case(1, 4864, 28, 4, 128, "float32"),
    "vision encoder, 2 x 4900 patches": Case(2, 4900, 16, 16, 72),
    "autoencoder at 1024 px, forward": Case(1, 128 * 128, 1, 1, 512, "float32", backward=False),
    "autoencoder at 1024 px": Case(1, 128 * 128, 1, 1, 512),
    "autoencoder, two images": Case(2, 128 * 128, 1, 1, 512),
}


def compiled(attention: Callable, case: Case, chip: str) -> tuple[float, jax.stages.Compiled]:
    """Compiles a program of query, key, value, metadata and output gradient. Returns the seconds and the program."""
    device = describe_devices(parse_slice(SLICES[chip]))[0]

    def shape(*sizes: int, dtype: str) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(sizes, dtype, sharding=SingleDeviceSharding(device))

    query = shape(case.batch, case.tokens, case.heads, case.head_dim, dtype=case.dtype)
    key = shape(case.batch, case.tokens, case.kv_heads, case.head_dim, dtype=case.dtype)
    metadata = TokenMetadata(*[shape(case.batch, case.tokens, dtype="int32")] * len(TokenMetadata._fields))

    def forward_and_backward(query, key, value, metadata, d_out):
        out, pull_back = jax.vjp(lambda *arrays: attention(*arrays, metadata), query, key, value)
        return out, pull_back(d_out) if case.backward else ()

    start = time.perf_counter()
    program = jax.jit(forward_and_backward).lower(query, key, key, metadata, query).compile()
    return time.perf_counter() - start, program


def kernel(query, key, value, metadata):
    return kernel_attention(query, key, value, metadata, metadata)


def dense(query, key, value, metadata):
    return dense_attention(query, key, value, pairwise_visible(metadata, metadata))


def splash_attention(query, key, value, metadata, override: bool = False):
    """Splash attention with a mask computed at run time."""
    blocks = dict.fromkeys(
        (
            "block_q", "block_kv", "block_kv_compute", "block_q_dkv", "block_kv_dkv", "block_kv_dkv_compute",
            "block_q_dq", "block_kv_dq",
        ),
        512,
    )  # fmt: skip

    def one_row(query, key, value, metadata):
        mask = jnp.broadcast_to(pairwise_visible(metadata, metadata), (query.shape[1], *[len(query)] * 2))
        attention = splash.make_splash_mha(mask, block_sizes=splash.BlockSizes(**blocks), head_shards=1, q_seq_shards=1)
        if override:
            parts, kwargs = attention.tree_flatten()
            attention = type(attention)(*(part._replace(is_dynamic_mask=True) for part in parts), **kwargs)
        q, k, v = (x.swapaxes(0, 1) for x in (query * query.shape[-1] ** -0.5, key, value))
        return attention(q, k, v).swapaxes(0, 1)

    return jax.vmap(one_row)(query, key, value, metadata)


def splash_attention_with_override(*arrays):
    """Splash attention with `is_dynamic_mask` overridden, without which it does not trace."""
    return splash_attention(*arrays, override=True)


def print_sizes(chip: str) -> None:
    print(f"| {chip} | query x key blocks | compiled in | temporaries |\n|---|---|---|---|")
    for name, case in CASES.items():
        seconds, program = compiled(kernel, case, chip)
        blocks = default_blocks(case.tokens, case.tokens, case.heads // case.kv_heads, case.head_dim)
        print(f"| {name} | {blocks.queries} x {blocks.keys} | {seconds:.0f} s | {_temporaries(program)} |", flush=True)


def print_comparison(chip: str) -> None:
    # Splash attention requires a multiple of its block size.
    case = Case(1, 5120, 28, 4, 128)
    print(f"| {chip}, {case.tokens} tokens | compiled in | temporaries |\n|---|---|---|")
    for attention in (kernel, dense, splash_attention, splash_attention_with_override):
        name = attention.__name__.replace("_", " ")
        try:
            seconds, program = compiled(attention, case, chip)
        except jax.errors.TracerBoolConversionError as error:
            print(f"| {name} | {type(error).__name__} | |", flush=True)
        else:
            print(f"| {name} | {seconds:.0f} s | {_temporaries(program)} |", flush=True)


def _temporaries(program: jax.stages.Compiled) -> str:
    memory = program.memory_analysis()
    assert memory is not None
    return f"{memory.temp_size_in_bytes / 2**20:.0f} MiB"


def print_shares() -> None:
    print("| row | blocks | visible pairs | visited blocks | masked among visited | computed / visible pairs |")
    print("|---|---|---|---|---|---|")
    for images in (1, 4):
        config = with_rows(1)
        for region in ("text", "latent", "caption", "query"):
            config.data[f"{region}_tokens"] *= images
        run = from_config_dict(config, RunConfig)
        example = example_row(run.data, run.model)
        metadata, visible = example.metadata, example.visible_pairs()
        tokens = metadata.sample.shape[1]
        chosen = default_blocks(tokens, tokens, 7, 128)
        for blocks in (chosen, Blocks(128, 128), Blocks(256, 512), Blocks(512, 512), Blocks(256, 1024)):
            query, key = pad_tokens(metadata, blocks.queries), pad_tokens(metadata, blocks.keys)
            states = block_states(query, key, blocks)
            visited = int(jnp.sum(states != NOTHING))
            masked = int(jnp.sum(states == SOMETHING))
            print(
                f"| {example.images} x 4864 tokens | {blocks.queries} x {blocks.keys} | {visible / tokens**2:.1%} "
                f"| {visited / states.size:.1%} of {states.size} | {masked / visited:.0%} "
                f"| {visited * blocks.queries * blocks.keys / visible:.3f} |",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chip", choices=SLICES, default="v5e")
    parser.add_argument("--compare", action="store_true", help="compare with dense and splash attention")
    parser.add_argument("--shares", action="store_true", help="visited blocks of typical rows")
    arguments = parser.parse_args()
    if arguments.shares:
        print_shares()
    elif arguments.compare:
        print_comparison(arguments.chip)
    else:
        print_sizes(arguments.chip)


if __name__ == "__main__":
    main()
