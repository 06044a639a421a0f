"""Packs samples into rows, and rows into a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from uno_jax.attention.metadata import TokenMetadata
from uno_jax.batch import REGIONS, Batch, Layout, PixelBatch, TokenBatch, TokenSource
from uno_jax.data.layout import Regions, region_dtypes


class PackedRegion(NamedTuple):
    """One region of one or more rows: `[..., tokens]`, padding at the end."""

    tokens: np.ndarray
    """Structured array with a field per array of the region (`region_dtypes`). Padding is zero."""
    sample: Int[np.ndarray, "*rows tokens"]
    """Index of the sample in its row, from 1; 0 for padding."""


Row = Mapping[str, PackedRegion]


def pack_row(samples: Sequence[Regions], capacities: Mapping[str, int], layout: Layout) -> Row:
    """Packs the samples into one row, in their order.

    Args:
      samples: outputs of `lay_out`. No samples give a row of padding.
      capacities: tokens per row of each region.
      layout: sizes of the model.

    Raises:
      ValueError: the samples do not fit. The message names the region.
    """
    row = {}
    for region in REGIONS:
        tokens = np.zeros(capacities[region], region_dtypes(layout)[region])
        number = np.zeros(capacities[region], np.int32)
        used = 0
        for i, sample in enumerate(samples, start=1):
            end = used + len(sample[region])
            if end > capacities[region]:
                raise ValueError(
                    f"{len(samples)} samples need more than the {capacities[region]} {region} tokens of a row: "
                    f"increase {region}_tokens, or pack fewer samples"
                )
            tokens[used:end] = sample[region]
            number[used:end] = i
            used = end
        row[region] = PackedRegion(tokens, number)
    return row


def make_batch(rows: Sequence[Row]) -> PixelBatch | Batch:
    """Stacks packed rows into a batch: a `Batch` if their latent tokens are precomputed moments.

    Example: one row with two records without captions. The first has the prompt "hi" and a picture of two latent
    tokens, the second the prompt "c" and a picture of one. The last token of each region is padding.

    >>> from uno_jax.data.layout import lay_out
    >>> from uno_jax.data.plans import NoisedTarget, Text
    >>> from uno_jax.data.tokenizer import byte_tokenizer
    >>> layout, tokenizer = Layout(pixels_per_token=16), byte_tokenizer()
    >>> two, one = (NoisedTarget(pixels=np.zeros((16, width, 3), np.uint8)) for width in (32, 16))
    >>> samples = [lay_out(plan, layout, tokenizer) for plan in ((Text(ids=(71, 72)), two), (Text(ids=(66,)), one))]
    >>> capacities = {"text": 12, "vit": 0, "caption": 0, "query": 0, "latent": 4}
    >>> batch = make_batch([pack_row(samples, capacities, layout)])
    >>> print(batch.text_ids)
    [[256  71  72 257 258 259 256  66 257 258 259   0]]
    >>> print(batch.understanding.sample, batch.generation.sample)
    [[1 1 1 1 1 1 2 2 2 2 2 0]] [[1 1 2 0]]
    >>> print(batch.understanding.order, batch.generation.order)
    [[0 1 2 3 4 7 0 1 2 3 5 0]] [[5 6 4 0]]
    >>> print(batch.latent_pixels.shape, batch.latent_pixels.dtype)
    (1, 4, 768) uint8
    """
    region = {
        name: PackedRegion(*(np.stack(arrays) for arrays in zip(*(row[name] for row in rows), strict=True)))
        for name in REGIONS
    }

    def field(name: str, key: str) -> np.ndarray:
        return np.ascontiguousarray(region[name].tokens[key])

    def metadata(*names: str) -> TokenMetadata:
        fields = {
            key: np.concatenate([region[name].tokens[key] for name in names], axis=-1)
            for key in TokenMetadata._fields
            if key != "sample"
        }
        return TokenMetadata(sample=np.concatenate([region[name].sample for name in names], axis=-1), **fields)

    def source(name: str) -> TokenSource:
        return TokenSource(**{key: field(name, key) for key in TokenSource._fields if has(name, key)})

    def has(name: str, key: str) -> bool:
        return key in (region[name].tokens.dtype.names or ())

    latent = region["latent"]
    align = latent.tokens["align"] if has("latent", "align") else None
    batch = TokenBatch(
        understanding=metadata("text", "vit", "caption", "query"),
        generation=metadata("latent"),
        text_ids=field("text", "ids"),
        text_labels=field("text", "labels"),
        text_loss=field("text", "loss"),
        text_dataset=field("text", "dataset") if has("text", "dataset") else None,
        vit_patches=field("vit", "patches"),
        vit_positions=field("vit", "positions"),
        vit_image=_number_runs(region["vit"].sample, region["vit"].tokens["image"]),
        caption_ids=field("caption", "ids"),
        caption_labels=field("caption", "labels"),
        caption_loss=field("caption", "loss"),
        caption_source=source("caption"),
        query_index=field("query", "index"),
        query_loss=field("query", "loss"),
        query_source=source("query"),
        target_patches=field("query", "patches"),
        target_positions=field("query", "positions"),
        target_image=_number_runs(region["query"].sample, region["query"].tokens["target"]),
        latent_positions=field("latent", "positions"),
        latent_index=field("latent", "index"),
        latent_time_scale=field("latent", "time_scale"),
        latent_loss=field("latent", "loss"),
        latent_source=source("latent"),
        align_patches=None if align is None else field("latent", "align_patches"),
        align_image=None if align is None else _number_runs(np.where(align > 0, latent.sample, 0), align),
    )
    if has("latent", "moments"):
        return Batch(**batch.shared(), latent_moments=field("latent", "moments"))
    return PixelBatch(**batch.shared(), latent_pixels=field("latent", "pixels"))


def padding_share(batch: TokenBatch) -> dict[str, float]:
    """Returns the fraction of padding tokens of each region, without regions of length 0."""
    lengths = (batch.text_ids, batch.vit_image, batch.caption_ids, batch.query_index)
    starts = np.cumsum([0] + [array.shape[1] for array in lengths])
    samples = [batch.understanding.sample[:, a:b] for a, b in pairwise(starts)]
    samples.append(batch.generation.sample)
    return {region: float(np.mean(sample == 0)) for region, sample in zip(REGIONS, samples, strict=True) if sample.size}


def _number_runs(sample: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Numbers the images of each row from 1, given their numbers within each sample. Padding is 0."""
    starts = (sample > 0) & ((np.diff(sample, prepend=0) != 0) | (np.diff(image, prepend=0) != 0))
    return np.where(sample > 0, np.cumsum(starts, axis=-1), 0).astype(np.int32)
