"""A batch row filled with the largest samples of a config, and its tokens and attention pairs."""

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
from uno_jax.batch import Batch, BatchShape, PixelBatch, padding_batch, without_supervision
from uno_jax.config import ConfigError
from uno_jax.data.config import DataConfig
from uno_jax.data.largest import largest_samples, needed_tokens
from uno_jax.data.layout import lay_out, sample_lengths
from uno_jax.data.plans import NoisedTarget, Plan
from uno_jax.data.rows import make_batch, pack_row
from uno_jax.data.tokenizer import byte_tokenizer
from uno_jax.models.config import DecoderConfig, ModelConfig, layout_of, training_layout
from uno_jax.parallel.mesh import batch_sharding

QUERIES_AT_ONCE = 512  # rows of the visibility matrix in memory at a time


@dataclass(frozen=True)
class Example:
    """One batch row, filled with samples of one task at the largest sizes."""

    row: PixelBatch | Batch
    """A batch of this row alone, in numpy, with zeros for pixels."""
    images: int
    """Number of samples in the row. Each has one target image."""

    @property
    def metadata(self) -> TokenMetadata:
        """Metadata of all tokens, understanding tokens first, `[1, tokens]`."""
        return joined(self.row.understanding, self.row.generation)

    def visible_pairs(self, *, supervision: bool = True) -> int:
        """Number of (query, key) pairs of which the query sees the key, with or without captions and metaqueries."""
        row = self.row if supervision else without_supervision(self.row)
        metadata = joined(row.understanding, row.generation)
        return visible_pairs(metadata, metadata)

    def visited_share(
        self, config: DecoderConfig, mesh_axes: Mapping[str, int], blocks: Blocks | None = None
    ) -> tuple[set[tuple[int, int]], float]:
        """Returns the block grids of the attention kernels on one device, and the share of blocks that they compute.

        A device has its shard of the queries of both buffers, and all keys. With many keys the backward pass takes
        several sweeps over a part of the keys each.

        Args:
          config: the decoder's sizes.
          mesh_axes: sizes of the mesh axes.
          blocks: block sizes. None means the kernel's defaults.

        Returns:
          Grids `(query blocks, key blocks)` of the forward pass and of each backward sweep, and the share of computed
          blocks, averaged over devices.
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
        """Number of tokens per region, without padding."""
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
    """Fills a row with as many samples of `task` as it holds.

    Images have the maximum size, and prompts and captions fill the rest of their regions. With the method `reca` the
    samples are reconstructions.

    Raises:
      ConfigError: the row is too short for one sample.
    """
    layout = training_layout(model)
    needed = sample_lengths(_largest_plan(data, task), layout)
    room = {name: data.capacities[name] // need for name, need in needed.items() if need}
    images = min(room.values())
    if data.max_samples_per_row:
        images = min(images, data.max_samples_per_row)
    if not images:
        raise ConfigError(
            "; ".join(
                f"config.data.{name}_tokens is {data.capacities[name]}, but one {task} sample with images of the "
                f"maximum size takes {needed[name]}"
                for name in room
                if not room[name]
            )
            + ". Increase the lengths, or reduce max_side of the transforms"
        )
    prompt_tokens = data.text_tokens // images - (needed["text"] - 1)
    # Where captions stand in for prompts, they have the prompt's room.
    caption_tokens = data.caption_tokens // images - 2 if needed["caption"] else prompt_tokens
    plan = _largest_plan(data, task, prompt_tokens=prompt_tokens, caption_tokens=caption_tokens)
    samples = [lay_out(plan, layout, byte_tokenizer(), task=task)] * images
    return Example(make_batch([pack_row(samples, data.capacities, layout)]), images)


def missing_room(data: DataConfig, model: ModelConfig, task: str) -> dict[str, Any]:
    """Returns the fields of `data` that are too small for one sample of `task`, with the lengths that it takes.

    Images have the maximum size. The values are ints, in tokens.
    """
    needed = needed_tokens(data, layout_of(model), task)
    return {f"{name}_tokens": need for name, need in needed.items() if need > data.capacities[name]}


def abstract_batch(data: DataConfig, model: ModelConfig, mesh: Mesh) -> Batch:
    """Returns shapes, dtypes and shardings of a train step's batch: latents as moments, vision patches as pixels."""
    shape = BatchShape(
        rows=1,
        text=data.text_tokens,
        vit=data.vit_tokens,
        captions=data.caption_tokens,
        queries=data.query_tokens,
        latents=data.latent_tokens,
        patch_features=3 * model.vision.patch_size**2,
        latent_features=2 * model.latent_size,
        align=model.align_layer > 0,
    )
    rows = batch_sharding(mesh)

    def abstract(x: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((data.rows, *x.shape[1:]), x.dtype, sharding=rows)

    batch: Batch = jax.tree.map(abstract, padding_batch(shape))
    return batch


def visible_pairs(queries: TokenMetadata, keys: TokenMetadata) -> int:
    """Counts the pairs of which the query sees the key. Metadata fields are numpy arrays, `[rows, tokens]`."""
    total = 0
    for start in range(0, queries.sample.shape[1], QUERIES_AT_ONCE):
        some = TokenMetadata(*(x[:, start : start + QUERIES_AT_ONCE] for x in queries))
        total += int(np.count_nonzero(pairwise_visible(some, keys)))
    return total


def joined(*buffers: TokenMetadata) -> TokenMetadata:
    """Concatenates buffers along the token axis."""
    return TokenMetadata(*(np.concatenate(fields, axis=1) for fields in zip(*buffers, strict=True)))


def _part(buffer: TokenMetadata, number: int, parts: int) -> TokenMetadata:
    """Shard `number` of `parts` of a buffer's tokens, or the whole buffer if it is not divisible."""
    tokens = buffer.sample.shape[1]
    if tokens % parts:
        return buffer
    here = slice(number * tokens // parts, (number + 1) * tokens // parts)
    return TokenMetadata(*(x[:, here] for x in buffer))


def _heads_of_a_key(config: DecoderConfig, tensor: int) -> int:
    """Number of query heads per key-value head on one device.

    If only the query heads are divisible by `tensor`, key-value heads are repeated, one per query head.
    """
    alone = config.num_heads % tensor == 0 and config.num_kv_heads % tensor != 0
    return 1 if alone else config.num_heads // config.num_kv_heads


def _largest_plan(data: DataConfig, task: str, **tokens: int) -> Plan:
    """The first of the method's largest samples with a target, because the targets dominate the cost of a step."""
    plans = [sample.plan for sample in largest_samples(data, task, **tokens)]
    return next((plan for plan in plans if isinstance(plan[-1], NoisedTarget)), plans[0])
