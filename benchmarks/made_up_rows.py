"""Rows with random contents for benchmarks, one sample each: prompt, image block, caption and metaqueries.

Needs no data package, so that a benchmark runs where only JAX, Flax and optax are installed.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from uno_jax.attention.metadata import CAPTION, CONTEXT, METAQUERY, NOISED, TokenMetadata
from uno_jax.batch import Batch, BatchShape, TokenBatch, padding_batch, position_ids
from uno_jax.models.config import ModelConfig


def made_up_rows(
    model: ModelConfig, rows: int, side: int, *, prompt: int, captions: int, queries: int, pixels: bool = True
) -> Batch:
    """A random batch with one text-to-image sample per row.

    Args:
      model: sizes of the model.
      rows: number of rows.
      side: side of the image, in latent tokens.
      prompt: prompt tokens.
      captions: caption tokens; 0 for none.
      queries: metaqueries, a square number; 0 for none.
      pixels: targets of the metaqueries are pixels, which the vision encoder reads. Otherwise they are its features.
    """
    rng = np.random.default_rng(0)
    text, latents = prompt + 2, side * side
    patch = 3 * model.vision.patch_size**2 if pixels else model.vision.hidden_size
    shape = BatchShape(rows, text, 0, captions, queries, latents, patch, 2 * model.latent_size)
    order = {
        "text": [*range(prompt), prompt, prompt + 1 + latents],
        "latent": [*range(prompt + 1, prompt + 1 + latents)],
        "caption": [*range(prompt + 2 + latents, prompt + 2 + latents + captions)],
        "query": [*range(prompt + 2 + latents + captions, prompt + 2 + latents + captions + queries)],
    }
    block_end = prompt + 1 + latents
    understanding_order = np.array(order["text"] + order["caption"] + order["query"])
    role = np.array([CONTEXT] * prompt + [NOISED] * 2 + [CAPTION] * captions + [METAQUERY] * queries)
    last = understanding_order.copy()
    last[role == NOISED] = block_end
    last[role == METAQUERY] = 2**30
    position = np.concatenate(
        [np.arange(prompt), [prompt, prompt], prompt + 1 + np.arange(captions), np.full(queries, prompt + 1)]
    )

    def repeated(*columns: Any) -> TokenMetadata:
        return TokenMetadata(*(tiled(x) for x in columns))

    def tiled(x: Any) -> np.ndarray:
        return np.tile(np.asarray(x, np.int32), (rows, 1))

    ones, generated = np.ones(len(role)), np.ones(latents)
    target_side = int(queries**0.5)
    positions = position_ids(target_side, target_side, model.vision.table_side) if pixels else np.arange(queries)
    batch = padding_batch(shape)
    target = rng.standard_normal((rows, queries, patch)).astype(np.float32)
    caption_ids = rng.integers(model.decoder.vocab_size - 2, size=(rows, captions + 1), dtype=np.int32)
    moments = rng.standard_normal(batch.latent_moments.shape).astype(np.float32)
    return dataclasses.replace(
        batch,
        understanding=repeated(ones, role, understanding_order, last, (role != CONTEXT).astype(int), position),
        generation=repeated(
            generated, NOISED * generated, order["latent"], block_end * generated, generated, prompt * generated
        ),
        text_ids=rng.integers(model.decoder.vocab_size, size=(rows, text), dtype=np.int32),
        vit_patches=np.zeros((rows, 0, patch), np.uint8 if pixels else np.float32),
        caption_ids=caption_ids[:, :-1],
        caption_labels=caption_ids[:, 1:],
        caption_loss=np.ones((rows, captions), bool),
        query_index=tiled(np.arange(queries)),
        query_loss=np.ones((rows, queries), bool),
        target_patches=rng.integers(256, size=target.shape, dtype=np.uint8) if pixels else target,
        target_positions=tiled(positions),
        target_image=tiled(np.ones(queries)) if pixels else batch.target_image,
        latent_moments=moments,
        latent_positions=tiled(position_ids(side, side, model.max_latent_size)),
        latent_index=tiled(np.arange(latents)),
        latent_time_scale=np.ones((rows, latents), np.float32),
        latent_loss=np.ones((rows, latents), bool),
        latent_source=batch.latent_source._replace(
            occurrence=np.tile(np.arange(rows, dtype=np.int32)[:, None], (1, latents))
        ),
    )


def block_after(batch: Batch, prompt: int) -> tuple[TokenMetadata, TokenBatch]:
    """Splits a batch without captions and metaqueries into the metadata of the prompt, and the block after it."""
    context = TokenMetadata(*(x[:, :prompt] for x in batch.understanding))
    fields = batch.shared() | {
        "understanding": TokenMetadata(*(x[:, prompt:] for x in batch.understanding)),
        "text_ids": batch.text_ids[:, prompt:],
        "text_labels": batch.text_labels[:, prompt:],
        "text_loss": batch.text_loss[:, prompt:],
    }
    return context, TokenBatch(**fields)
