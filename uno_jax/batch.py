"""The layout of a batch: two dense buffers, one per expert, and the metadata that orders them.

A row holds several packed samples. Its tokens live in two buffers of static length. The understanding buffer is the
concatenation of four regions, each of a static length of its own: context text and delimiters | ViT tokens |
captions | metaqueries. The generation buffer holds latent tokens. `data` writes batches and the model reads them;
neither knows the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from uno_jax.attention.metadata import TokenMetadata

Array = Any  # a numpy array in the data pipeline, a jax array in the step

# Tasks, for metrics by task.
TASKS = ("text_to_image", "editing", "understanding", "reconstruction")

REGIONS = ("text", "vit", "caption", "query", "latent")


@dataclass(frozen=True)
class Layout:
    """The sizes of the model that shape tokens."""

    vit_patch_size: int = 14
    vit_table_side: int = 70
    pixels_per_token: int = 16
    """Side, in pixels, of the square under one latent token."""
    max_latent_size: int = 64
    num_metaqueries: int = 256


class TokenSource(NamedTuple):
    """Where a token's randomness comes from, and which task it is counted under; all int32 `[rows, tokens]`.

    The keys of t, of the noise and of the autoencoder's sample are folded from the seed and these numbers alone, so
    they do not depend on the place in the batch, on the device, or on the step.
    """

    occurrence: Array
    """Number of the sample in the endless data order (it differs each time a sample comes round again)."""
    image: Array
    """Which latent image of the sample, from 0. For captions and metaqueries: that of their noised target."""
    task: Array
    """Index into TASKS."""


class Batch(NamedTuple):
    """One packed batch. Sizes: B rows, T text, V ViT, C caption, Q metaquery, G latent tokens; U = T + V + C + Q.

    P is the length of a flattened ViT patch (patch * patch * 3), K that of the pixels under one latent token, L the
    width of a latent token. All integer arrays are int32, masks are bool, pixels are uint8. Any region may have
    length 0.
    """

    understanding: TokenMetadata  # [B, U], regions in the order text | ViT | caption | metaquery
    generation: TokenMetadata  # [B, G]

    text_ids: Array  # [B, T] context text, and the delimiters of all image blocks, noised ones too
    text_labels: Array  # [B, T] the token that should follow
    text_loss: Array  # [B, T] bool: answers are trained here

    vit_patches: Array
    """[B, V, P] uint8 pixels, flattened (row, column, channel); or the vision encoder's features, precomputed:
    [B, V, Dv] float."""
    vit_positions: Array  # [B, V] row * side + column, index of both position tables
    vit_image: Array  # [B, V] number of the image in the row, from 1; 0 for padding

    caption_ids: Array  # [B, C]
    caption_labels: Array  # [B, C]
    caption_loss: Array  # [B, C] bool
    caption_source: TokenSource  # [B, C]

    query_index: Array  # [B, Q] row of the metaquery table
    query_loss: Array  # [B, Q] bool
    query_source: TokenSource  # [B, Q]
    target_patches: Array
    """[B, Q, P] uint8: the clean target at metaquery resolution, patch j is what query j predicts; or its features,
    precomputed: [B, Q, Dv] float."""
    target_positions: Array  # [B, Q] as vit_positions
    target_image: Array  # [B, Q] as vit_image, numbered apart from it

    latent_moments: Array
    """[B, G, 2 * L] float32 mean and log-variance of each latent token; before the encoder has run,
    [B, G, K] uint8 pixels under each token, flattened (row, column, channel)."""
    latent_positions: Array  # [B, G] row * max_latent_size + column
    latent_index: Array  # [B, G] number of the token in its image, row by row
    latent_time_scale: Array  # [B, G] float32: t = scale * drawn t; 0 for clean latents, 1 for a noised target
    latent_loss: Array  # [B, G] bool: flow matching is trained here
    latent_source: TokenSource  # [B, G]


class BatchShape(NamedTuple):
    """The static sizes of a batch, named as in `Batch`."""

    rows: int
    text: int
    vit: int
    captions: int
    queries: int
    latents: int
    patch_features: int
    """P, pixels of a flattened ViT patch."""
    latent_features: int
    """2 * L, mean and log-variance of a latent token."""


def padding_batch(shape: BatchShape) -> Batch:
    """A batch of that shape that holds nothing but padding, in numpy, with moments for latents."""

    def zeros(tokens: int, *features: int, dtype: Any = np.int32) -> Array:
        return np.zeros((shape.rows, tokens, *features), dtype)

    def source(tokens: int) -> TokenSource:
        return TokenSource(*(zeros(tokens) for _ in TokenSource._fields))

    understanding = shape.text + shape.vit + shape.captions + shape.queries
    return Batch(
        understanding=TokenMetadata(*(zeros(understanding) for _ in TokenMetadata._fields)),
        generation=TokenMetadata(*(zeros(shape.latents) for _ in TokenMetadata._fields)),
        text_ids=zeros(shape.text),
        text_labels=zeros(shape.text),
        text_loss=zeros(shape.text, dtype=bool),
        vit_patches=zeros(shape.vit, shape.patch_features, dtype=np.uint8),
        vit_positions=zeros(shape.vit),
        vit_image=zeros(shape.vit),
        caption_ids=zeros(shape.captions),
        caption_labels=zeros(shape.captions),
        caption_loss=zeros(shape.captions, dtype=bool),
        caption_source=source(shape.captions),
        query_index=zeros(shape.queries),
        query_loss=zeros(shape.queries, dtype=bool),
        query_source=source(shape.queries),
        target_patches=zeros(shape.queries, shape.patch_features, dtype=np.uint8),
        target_positions=zeros(shape.queries),
        target_image=zeros(shape.queries),
        latent_moments=zeros(shape.latents, shape.latent_features, dtype=np.float32),
        latent_positions=zeros(shape.latents),
        latent_index=zeros(shape.latents),
        latent_time_scale=zeros(shape.latents, dtype=np.float32),
        latent_loss=zeros(shape.latents, dtype=bool),
        latent_source=source(shape.latents),
    )
