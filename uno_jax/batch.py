"""The layout of a batch: two dense buffers, one per expert, and the metadata that orders their tokens.

A row contains several packed samples. Its tokens are in two buffers of static length. The understanding buffer
concatenates four regions of static length: context text and delimiters | ViT tokens | captions | metaqueries. The
generation buffer contains latent tokens. `data` writes batches and `models` reads them, independently of each other.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int32, UInt8

from uno_jax.attention.metadata import TokenMetadata

# Names of the tasks in metrics.
TASKS = ("text_to_image", "editing", "understanding", "reconstruction")

REGIONS = ("text", "vit", "caption", "query", "latent")


@dataclass(frozen=True)
class Layout:
    """Model sizes that determine the layout of tokens."""

    vit_patch_size: int = 14
    vit_table_side: int = 70
    pixels_per_token: int = 16
    """Side, in pixels, of the square under one latent token."""
    max_latent_size: int = 64
    num_metaqueries: int = 256
    align: bool = False
    """Whether noised targets carry the ViT patches that the align loss needs, one per latent token."""
    datasets: bool = False
    """Whether tokens state which dataset of a mixture they are of, for the metrics."""
    moments: int = 0
    """Number of precomputed moments of a latent token; 0 = latent tokens are pixels that are encoded later."""
    features: int = 0
    """Number of precomputed vision features of a patch; 0 = patches are pixels, which the model encodes."""
    features_dtype: str = "float32"
    """dtype of these features."""


def position_ids(rows: int, columns: int, side: int) -> Int[np.ndarray, " patches"]:
    """Returns indices into a `side` x `side` position table, in row-major order over a grid of patches.

    Raises:
      ValueError: the grid is larger than the table.
    """
    if rows > side or columns > side:
        raise ValueError(f"a grid of {rows}x{columns} patches is larger than the position table of {side}x{side}")
    return (np.arange(rows, dtype=np.int32)[:, None] * side + np.arange(columns, dtype=np.int32)).reshape(-1)


AnyBatch = TypeVar("AnyBatch", bound="TokenBatch")


class TokenSource(NamedTuple):
    """Origin of a token, which determines its random numbers, and its task in metrics.

    The random keys of t, of the noise and of the autoencoder's sample are folded from the seed and these numbers only.
    They do not depend on the place in the batch, the device, or the step.
    """

    occurrence: Int32[Any, "*B tokens"]
    """Index of the sample in the endless data order. It differs in every epoch."""
    image: Int32[Any, "*B tokens"]
    """Index of the latent image in the sample, from 0. For captions and metaqueries: that of their noised target."""
    task: Int32[Any, "*B tokens"]
    """Index into TASKS."""
    dataset: Int32[Any, "*B tokens"] | None = None
    """Index of its dataset in the mixture. None without a mixture."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True, eq=False)
class TokenBatch:
    """A packed batch without the contents of its latents: all model inputs except the noised latents.

    Arrays are numpy arrays in the data pipeline and JAX arrays in the step. Sizes: `*B` rows (and optional leading
    axes), T text, V ViT, C caption, Q metaquery and G latent tokens. P is the length of a flattened ViT patch (patch *
    patch * 3), Dv the width of the vision encoder. Any region may have length 0.
    """

    understanding: TokenMetadata
    """Metadata `[*B, T + V + C + Q]` in the order text | ViT | caption | metaquery."""
    generation: TokenMetadata
    """Metadata `[*B, G]`."""

    text_ids: Int32[Any, "*B T"]
    """Context text, and the delimiters of all image blocks, including noised ones."""
    text_labels: Int32[Any, "*B T"]
    """Id of the next token."""
    text_loss: Bool[Any, "*B T"]
    """True where answers are trained."""
    text_dataset: Int32[Any, "*B T"] | None = None
    """Index of the dataset of each token, as in `TokenSource`."""

    vit_patches: UInt8[Any, "*B V P"] | Float[Any, "*B V Dv"]
    """Flattened pixels (row, column, channel), or precomputed features of the vision encoder."""
    vit_positions: Int32[Any, "*B V"]
    """Index of both position tables: row * side + column."""
    vit_image: Int32[Any, "*B V"]
    """Number of the image in the row, from 1; 0 for padding."""

    caption_ids: Int32[Any, "*B C"]
    caption_labels: Int32[Any, "*B C"]
    """Id of the next token."""
    caption_loss: Bool[Any, "*B C"]
    caption_source: TokenSource
    """`[*B, C]`"""

    query_index: Int32[Any, "*B Q"]
    """Row of the metaquery table."""
    query_loss: Bool[Any, "*B Q"]
    query_source: TokenSource
    """`[*B, Q]`"""
    target_patches: UInt8[Any, "*B Q P"] | Float[Any, "*B Q Dv"]
    """Patches of the clean target, one per metaquery: pixels or features, like `vit_patches`."""
    target_positions: Int32[Any, "*B Q"]
    """Like `vit_positions`."""
    target_image: Int32[Any, "*B Q"]
    """Like `vit_image`, but numbered independently."""

    latent_positions: Int32[Any, "*B G"]
    """Index of the latent position table: row * max_latent_size + column."""
    latent_index: Int32[Any, "*B G"]
    """Number of the token in its image, row by row."""
    latent_time_scale: Float32[Any, "*B G"]
    """Factor on the random t: 1 for a noised target, 0 for clean latents."""
    latent_loss: Bool[Any, "*B G"]
    """True where flow matching is trained."""
    latent_source: TokenSource
    """`[*B, G]`"""
    align_patches: UInt8[Any, "*B G P"] | Float[Any, "*B G Dv"] | None = None
    """Patch of the clean target at the place of each latent token: pixels or features, like `vit_patches`. None without
    the align loss."""
    align_image: Int32[Any, "*B G"] | None = None
    """Like `vit_image`, but numbered independently; 0 for latent tokens without a patch."""

    def shared(self) -> dict[str, Any]:
        """Fields that all kinds of batch have, by name."""
        return {field.name: getattr(self, field.name) for field in fields(TokenBatch)}


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True, eq=False)
class PixelBatch(TokenBatch):
    """Output of the data pipeline, before the autoencoder encodes the latent images (`encode_batch`)."""

    latent_pixels: UInt8[Any, "*B G K"]
    """Pixels under each latent token, flattened (row, column, channel): K = side * side * 3."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True, eq=False)
class Batch(TokenBatch):
    """Input of the train step."""

    latent_moments: Float32[Any, "*B G M"]
    """Mean and log-variance of each latent token; M is twice its width."""


def without_supervision(batch: AnyBatch) -> AnyBatch:
    """Removes everything that only supervision reads: captions, metaqueries with targets, and aligned patches.

    No other token sees captions and metaqueries, so all other outputs of the model stay the same.
    """
    context = batch.text_ids.shape[1] + batch.vit_image.shape[1]

    def none(*names: str) -> dict[str, Any]:
        return {name: jax.tree.map(lambda x: x[:, :0], getattr(batch, name)) for name in names}

    return dataclasses.replace(
        batch,
        understanding=TokenMetadata(*(x[:, :context] for x in batch.understanding)),
        **none("caption_ids", "caption_labels", "caption_loss", "caption_source"),
        **none("query_index", "query_loss", "query_source", "target_patches", "target_positions", "target_image"),
        align_patches=None,
        align_image=None,
    )


class BatchShape(NamedTuple):
    """The static sizes of a batch, named as in `Batch`."""

    rows: int
    text: int
    vit: int
    captions: int
    queries: int
    latents: int
    patch_features: int
    """P, the length of a flattened ViT patch."""
    latent_features: int
    """M, twice the width of a latent token."""
    align: bool = False
    """Whether latent tokens have patches for the align loss."""


def padding_batch(shape: BatchShape) -> Batch:
    """Makes a numpy batch of padding only."""

    def zeros(tokens: int, *features: int, dtype: Any = np.int32) -> np.ndarray:
        return np.zeros((shape.rows, tokens, *features), dtype)

    def source(tokens: int) -> TokenSource:
        return TokenSource(zeros(tokens), zeros(tokens), zeros(tokens))

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
        align_patches=zeros(shape.latents, shape.patch_features, dtype=np.uint8) if shape.align else None,
        align_image=zeros(shape.latents) if shape.align else None,
    )
