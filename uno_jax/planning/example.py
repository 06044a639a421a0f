"""A batch row that stands for all rows of a run, and its tokens and attention pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from uno_jax.attention.block_map import Blocks, visited_share
from uno_jax.attention.kernel import backward_sweeps, default_blocks
from uno_jax.attention.metadata import PADDING, TokenMetadata, pairwise_visible
from uno_jax.batch import TokenBatch, without_supervision
from uno_jax.models.config import DecoderConfig

QUERIES_AT_ONCE = 512  # rows of the visibility matrix in memory at a time


@dataclass(frozen=True)
class Example:
    """One batch row, filled with samples of one task at the largest sizes."""

    row: TokenBatch
    """A batch of this row alone, in numpy. The contents of its latents and pixels are of no account."""
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
