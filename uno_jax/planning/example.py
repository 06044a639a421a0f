"""A full batch row of the largest samples that a config lets in, and what counting needs to know of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from uno_jax.attention.block_map import Blocks, visited_share
from uno_jax.attention.kernel import backward_sweeps, default_blocks
from uno_jax.attention.metadata import PADDING, TokenMetadata, pairwise_visible
from uno_jax.batch import Batch, BatchShape, PixelBatch, padding_batch
from uno_jax.config import ConfigError
from uno_jax.data.config import DataConfig
from uno_jax.data.largest import largest_samples, needed_tokens
from uno_jax.data.layout import lay_out, sample_lengths
from uno_jax.data.plans import NoisedTarget, Plan
from uno_jax.data.rows import make_batch, pack_row
from uno_jax.data.tokenizer import byte_tokenizer
from uno_jax.models.config import DecoderConfig, ModelConfig, layout_of
from uno_jax.parallel.mesh import batch_sharding

QUERIES_AT_ONCE = 512  # rows of the visibility matrix that are in memory at a time


@dataclass(frozen=True)
class Example:
    """One row, packed full with samples of one task at the largest sizes."""

    row: PixelBatch
    """Of one row, in numpy; its pixels are zeros."""
    images: int
    """Samples in the row; each draws one picture."""

    @property
    def metadata(self) -> TokenMetadata:
        """Of all tokens, understanding first: `[1, tokens]`."""
        return joined(self.row.understanding, self.row.generation)

    def visible_pairs(self) -> int:
        """Pairs of tokens of which one sees the other."""
        return visible_pairs(self.metadata, self.metadata)

    def visited_share(
        self, config: DecoderConfig, mesh_axes: Mapping[str, int], blocks: Blocks | None = None
    ) -> tuple[set[tuple[int, int]], float]:
        """Blocks of queries and of keys that the attention kernels cut a device's tokens into, and the share of their
        pairs that they compute, on average over devices.

        A device has its part of the queries of either buffer, and all keys; many keys are swept in parts by the
        backward pass, which together compute that share.
        """
        keys, parts = self.metadata, mesh_axes["sequence"]
        buffers = self.row.understanding, self.row.generation
        queries = [joined(*(_part(buffer, number, parts) for buffer in buffers)) for number in range(parts)]
        lengths = queries[0].sample.shape[1], keys.sample.shape[1]
        blocks = blocks or default_blocks(*lengths, _heads_of_a_key(config, mesh_axes["tensor"]), config.head_dim)
        share = np.mean([visited_share(own, keys, blocks) for own in queries])
        query_blocks, key_blocks = -(-lengths[0] // blocks.queries), -(-lengths[1] // blocks.keys)
        sweeps = backward_sweeps(key_blocks, blocks, config.head_dim)
        return {(query_blocks, key_blocks), *((query_blocks, stop - first) for first, stop in sweeps)}, float(share)

    def tokens(self) -> dict[str, int]:
        """Tokens that are not padding, by region."""
        row = self.row
        lengths = {
            "text": row.text_ids.shape[1],
            "vit": row.vit_image.shape[1],
            "caption": row.caption_ids.shape[1],
            "query": row.query_index.shape[1],
        }
        counts, start = {}, 0
        for name, length in lengths.items():
            counts[name] = int(np.count_nonzero(row.understanding.role[:, start : start + length] != PADDING))
            start += length
        return counts | {"latent": int(np.count_nonzero(row.generation.role != PADDING))}


def example_row(data: DataConfig, model: ModelConfig, task: str = "text_to_image") -> Example:
    """As many samples of `task` (of method reca, reconstructions instead) as a row holds, each with pictures of the
    largest size and the rest of the text and caption regions filled.

    Raises:
      ConfigError: a row does not hold one.
    """
    layout = layout_of(model)
    least = sample_lengths(_largest_plan(data, task), layout)
    room = {name: data.capacities[name] // need for name, need in least.items() if need}
    images = min(room.values())
    if data.max_samples_per_row:
        images = min(images, data.max_samples_per_row)
    if not images:
        raise ConfigError(
            "; ".join(
                f"config.data.{name}_tokens is {data.capacities[name]}, but one {task} sample with pictures of the "
                f"largest size takes {least[name]}"
                for name in room
                if not room[name]
            )
            + ": give at least that, or lower the transform's max_side"
        )
    prompt_tokens = data.text_tokens // images - (least["text"] - 1)
    caption_tokens = data.caption_tokens // images - 2
    plan = _largest_plan(data, task, prompt_tokens=prompt_tokens, caption_tokens=caption_tokens)
    samples = [lay_out(plan, layout, byte_tokenizer(), task=task)] * images
    return Example(make_batch([pack_row(samples, data.capacities, layout)]), images)


def missing_room(data: DataConfig, model: ModelConfig, task: str) -> dict[str, Any]:
    """The fields of `data` that are too small for one sample of `task` with pictures of the largest size, and the
    lengths (int) that it takes."""
    needed = needed_tokens(data, layout_of(model), task)
    return {f"{name}_tokens": need for name, need in needed.items() if need > data.capacities[name]}


def abstract_batch(data: DataConfig, model: ModelConfig, mesh: Mesh) -> Batch:
    """Shapes, dtypes and places of the batch that the step takes: latents as moments, vision patches as pixels."""
    shape = BatchShape(
        rows=1,
        text=data.text_tokens,
        vit=data.vit_tokens,
        captions=data.caption_tokens,
        queries=data.query_tokens,
        latents=data.latent_tokens,
        patch_features=3 * model.vision.patch_size**2,
        latent_features=2 * model.latent_size,
    )
    rows = batch_sharding(mesh)

    def abstract(x: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((data.rows, *x.shape[1:]), x.dtype, sharding=rows)

    batch: Batch = jax.tree.map(abstract, padding_batch(shape))
    return batch


def visible_pairs(queries: TokenMetadata, keys: TokenMetadata) -> int:
    """Pairs of which the query sees the key; metadata is `[rows, tokens]`, numpy."""
    total = 0
    for start in range(0, queries.sample.shape[1], QUERIES_AT_ONCE):
        some = TokenMetadata(*(x[:, start : start + QUERIES_AT_ONCE] for x in queries))
        total += int(np.count_nonzero(pairwise_visible(some, keys)))
    return total


def joined(*buffers: TokenMetadata) -> TokenMetadata:
    """One buffer after the other, along the tokens."""
    return TokenMetadata(*(np.concatenate(fields, axis=1) for fields in zip(*buffers, strict=True)))


def _part(buffer: TokenMetadata, number: int, parts: int) -> TokenMetadata:
    """One of so many equal parts of a buffer's tokens; the whole where they do not divide it."""
    tokens = buffer.sample.shape[1]
    if tokens % parts:
        return buffer
    here = slice(number * tokens // parts, (number + 1) * tokens // parts)
    return TokenMetadata(*(x[:, here] for x in buffer))


def _heads_of_a_key(config: DecoderConfig, tensor: int) -> int:
    """Query heads to a key-value head on one device; each has a key-value head of its own where `tensor` cuts only
    the queries' heads."""
    alone = config.num_heads % tensor == 0 and config.num_kv_heads % tensor != 0
    return 1 if alone else config.num_heads // config.num_kv_heads


def _largest_plan(data: DataConfig, task: str, **tokens: int) -> Plan:
    """The first of the method's largest samples that has a target, for the cost of a step is that of its targets."""
    plans = [sample.plan for sample in largest_samples(data, task, **tokens)]
    return next((plan for plan in plans if isinstance(plan[-1], NoisedTarget)), plans[0])
