"""Layout of a sample plan as arrays: one structured array per region, with metadata for attention.

The regions are those of `uno_jax.batch`: text, vit, caption, query, latent. The field `order` is a token's index in
the sample's logical sequence, so regions can be packed separately. The sequence follows BAGEL's public
implementation: items in plan order, an image between its two delimiters, and the caption and the metaqueries directly
after their noised block.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from uno_jax.attention.metadata import CAPTION, CONTEXT, METAQUERY, NOISED
from uno_jax.batch import REGIONS, TASKS, Layout, position_ids
from uno_jax.data.plans import (
    CleanLatents,
    DroppedImage,
    Features,
    Item,
    Moments,
    NoisedTarget,
    Pixels,
    Plan,
    Text,
    VitImage,
)
from uno_jax.data.tokenizer import Tokenizer
from uno_jax.data.transforms import patchify, resize

Regions = dict[str, np.ndarray]
"""Structured array of each region, `[tokens of the sample]`, with dtype `region_dtypes(layout)[region]`."""

_METADATA: list[Any] = [(name, np.int32) for name in ("role", "order", "last_visible", "block", "position")]
_SOURCE: list[Any] = [(name, np.int32) for name in ("occurrence", "image", "task")]
_DATASET: list[Any] = [("dataset", np.int32)]


@cache
def region_dtypes(layout: Layout) -> dict[str, np.dtype]:
    """Returns the structured dtype of each region. Fields are named as in `PixelBatch`, without the region's name."""
    vit_values = layout.vit_patch_size**2 * 3
    patch = (np.dtype(layout.features_dtype), layout.features) if layout.features else (np.uint8, vit_values)
    latent_values = layout.pixels_per_token**2 * 3
    flag = ("loss", np.bool_)
    aligned: list[Any] = [("align", np.int32), ("align_patches", np.uint8, vit_values)] if layout.align else []
    moments = ("moments", np.float32, layout.moments)
    dataset = _DATASET if layout.datasets else []
    source = _SOURCE + dataset
    contents = moments if layout.moments else ("pixels", np.uint8, latent_values)
    fields: dict[str, list[Any]] = {
        "text": [("ids", np.int32), ("labels", np.int32), *dataset, flag],
        "vit": [("positions", np.int32), ("image", np.int32), ("patches", *patch)],
        "caption": [("ids", np.int32), ("labels", np.int32), *source, flag],
        "query": [
            ("index", np.int32),
            ("positions", np.int32),
            ("target", np.int32),
            *source,
            flag,
            ("patches", *patch),
        ],
        "latent": [
            ("positions", np.int32),
            ("index", np.int32),
            ("time_scale", np.float32),
            *source,
            flag,
            contents,
            *aligned,
        ],
    }
    return {region: np.dtype(_METADATA + fields[region], align=True) for region in REGIONS}


def sample_lengths(plan: Plan, layout: Layout) -> dict[str, int]:
    """Returns the number of tokens of each region in the plan."""
    lengths = dict.fromkeys(REGIONS, 0)
    for item in plan:
        match item:
            case Text(ids=ids):
                lengths["text"] += len(ids) + 2
            case VitImage(pixels=pixels):
                lengths["text"] += 2
                lengths["vit"] += math.prod(patch_grid(pixels, layout))
            case CleanLatents(pixels=pixels):
                lengths["text"] += 2
                lengths["latent"] += math.prod(latent_grid(pixels, layout))
            case NoisedTarget(pixels=pixels, caption=caption, query_pixels=query_pixels):
                lengths["text"] += 2
                lengths["latent"] += math.prod(latent_grid(pixels, layout))
                lengths["caption"] += 0 if caption is None else len(caption) + 2
                lengths["query"] += 0 if query_pixels is None else math.prod(patch_grid(query_pixels, layout))
    return lengths


def lay_out(
    plan: Plan, layout: Layout, tokenizer: Tokenizer, *, occurrence: int = 0, task: str = TASKS[0], dataset: int = 0
) -> Regions:
    """Lays out one sample as arrays.

    Example: method `uno` turns a record with the prompt "hi", the caption "c" and a picture of 32 x 16 pixels into the
    plan below. It has 13 tokens: the text, the noised picture between its delimiters, the caption, two metaqueries.

    >>> from uno_jax.data.tokenizer import byte_tokenizer
    >>> picture, small_picture = np.zeros((16, 32, 3), np.uint8), np.zeros((8, 16, 3), np.uint8)
    >>> prompt = Text(ids=(71, 72), droppable=True)
    >>> target = NoisedTarget(pixels=picture, caption=(66,), query_pixels=small_picture)
    >>> layout = Layout(vit_patch_size=8, pixels_per_token=16)
    >>> sample = lay_out((prompt, target), layout, byte_tokenizer())
    >>> for region, tokens in sample.items():
    ...     print(f"{region}: order {tokens['order']}, position {tokens['position']}")
    text: order [0 1 2 3 4 7], position [0 1 2 3 4 4]
    vit: order [], position []
    caption: order [ 8  9 10], position [5 6 7]
    query: order [11 12], position [5 5]
    latent: order [5 6], position [4 4]

    Text attends causally, and a picture attends to all of itself. `last_visible` is the order of the last token that a
    token may attend to.

    >>> print(sample["text"]["ids"], sample["text"]["last_visible"], sample["latent"]["last_visible"])
    [256  71  72 257 258 259] [0 1 2 3 7 7] [7 7]

    Args:
      plan: items of the sample.
      layout: sizes of the model.
      tokenizer: provides the delimiters.
      occurrence: number of the sample in the data order, the seed of the train step's random draws for it.
      task: task under which metrics count its tokens.
      dataset: index of its dataset in a mixture, under which metrics count them, too, if the layout has `datasets`.

    Raises:
      ValueError: the sides of an image are not multiples of its patch size, the image is larger than its position
        table, or it has more metaquery patches than the metaquery table has rows.
    """
    writer = _Writer(layout, tokenizer, {"occurrence": occurrence, "task": TASKS.index(task), "dataset": dataset})
    for item in plan:
        writer.item(item)
    return writer.regions()


def latent_grid(pixels: Pixels | Moments, layout: Layout) -> tuple[int, int]:
    """Returns rows and columns of the latent tokens of a picture, given as pixels or as moments."""
    height, width = pixels.shape[:2]
    if np.issubdtype(pixels.dtype, np.floating):
        return int(height), int(width)
    return int(height // layout.pixels_per_token), int(width // layout.pixels_per_token)


def patch_grid(pixels: Pixels | Features, layout: Layout) -> tuple[int, int]:
    """Returns rows and columns of the ViT patches of a picture, given as pixels or as vision features."""
    height, width = pixels.shape[:2]
    if pixels.dtype != np.uint8:
        return int(height), int(width)
    return int(height // layout.vit_patch_size), int(width // layout.vit_patch_size)


class _Writer:
    """Walks a plan, tracks order and position, and collects the pieces of each region."""

    def __init__(self, layout: Layout, tokenizer: Tokenizer, source: Mapping[str, int]):
        self._layout = layout
        self._tokenizer = tokenizer
        self._source = source
        self._pieces: dict[str, list[np.ndarray]] = {region: [] for region in REGIONS}
        self._order = 0
        self._position = 0
        self._blocks = 0
        self._latent_images = 0
        self._vit_images = 0
        self._targets = 0

    def regions(self) -> Regions:
        regions = {}
        for region, pieces in self._pieces.items():
            pieces = pieces or [np.zeros(0, region_dtypes(self._layout)[region])]
            regions[region] = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
        return regions

    def item(self, item: Item) -> None:
        match item:
            case Text():
                self._text(item)
            case VitImage():
                self._vit_image(item)
            case CleanLatents():
                self._clean_latents(item)
            case NoisedTarget():
                self._noised_target(item)
            case DroppedImage():
                self._position += 1
            case _:
                raise TypeError(f"not a plan item: {item!r}")

    def _text(self, item: Text) -> None:
        ids = self._delimited(item.ids)
        piece = self._piece("text", len(ids), CONTEXT)
        piece["ids"] = ids
        piece["order"] = piece["last_visible"] = self._order + np.arange(len(ids))
        piece["position"] = self._position + np.arange(len(ids))
        if item.answer:
            piece["labels"][:-1] = ids[1:]
            piece["loss"][:-1] = True
        self._order += len(ids)
        self._position += len(ids)

    def _vit_image(self, item: VitImage) -> None:
        grid = patch_grid(item.pixels, self._layout)
        last = self._order + math.prod(grid) + 1
        self._image_delimiters(CONTEXT, last, block=0)
        self._vit_images += 1
        piece = self._piece("vit", last - self._order - 1, CONTEXT)
        self._inside_block(piece, last)
        piece["patches"] = self._patches(item.pixels)
        piece["positions"] = position_ids(*grid, self._layout.vit_table_side)
        piece["image"] = self._vit_images
        self._order = last + 1
        self._position += 1

    def _clean_latents(self, item: CleanLatents) -> None:
        last = self._order + math.prod(latent_grid(item.pixels, self._layout)) + 1
        self._image_delimiters(CONTEXT, last, block=0)
        piece = self._latents(item.pixels, CONTEXT, last, block=0)
        piece["time_scale"] = item.time_scale
        self._order = last + 1
        self._position += 1

    def _noised_target(self, item: NoisedTarget) -> None:
        self._blocks += 1
        last = self._order + math.prod(latent_grid(item.pixels, self._layout)) + 1
        self._image_delimiters(NOISED, last, self._blocks)
        piece = self._latents(item.pixels, NOISED, last, self._blocks)
        piece["time_scale"] = 1.0
        piece["loss"] = item.flow
        if self._layout.align and item.flow:
            piece["align"] = self._blocks
            piece["align_patches"] = self._patch_per_latent(item.pixels)
        self._order = last + 1
        if item.caption is not None:
            self._caption(item.caption)
        if item.query_pixels is not None:
            self._metaqueries(item.query_pixels)
        if not item.flow:
            self._latent_images -= 1  # the target that follows is the same image, with the same random draws
        # A noised target does not advance the position: what follows, such as its clean copy, has the same position.

    def _caption(self, caption: Sequence[int]) -> None:
        ids = self._delimited(caption)
        piece = self._piece("caption", len(ids), CAPTION, self._blocks)
        piece["ids"] = ids
        piece["labels"][:-1] = ids[1:]
        piece["loss"][:-1] = True
        piece["order"] = piece["last_visible"] = self._order + np.arange(len(ids))
        piece["position"] = self._position + 1 + np.arange(len(ids))
        piece["image"] = self._latent_images - 1
        self._order += len(ids)

    def _metaqueries(self, pixels: Pixels | Features) -> None:
        grid, patch = patch_grid(pixels, self._layout), self._layout.vit_patch_size
        count = math.prod(grid)
        if count > self._layout.num_metaqueries:
            raise ValueError(
                f"a target of {grid[1] * patch}x{grid[0] * patch} pixels has {count} patches of {patch}, more than the "
                f"{self._layout.num_metaqueries} rows of the metaquery table"
            )
        piece = self._piece("query", count, METAQUERY, self._blocks)
        self._targets += 1
        piece["index"] = np.arange(count)
        piece["order"] = self._order + np.arange(count)
        piece["last_visible"] = self._order + count - 1
        piece["position"] = self._position + 1
        piece["patches"] = self._patches(pixels)
        piece["positions"] = position_ids(*grid, self._layout.vit_table_side)
        piece["target"] = self._targets
        piece["image"] = self._latent_images - 1
        piece["loss"] = True
        self._order += count

    def _latents(self, pixels: Pixels | Moments, role: int, last: int, block: int) -> np.ndarray:
        rows, columns = latent_grid(pixels, self._layout)
        piece = self._piece("latent", rows * columns, role, block)
        self._inside_block(piece, last)
        if self._layout.moments:
            piece["moments"] = pixels.reshape(rows * columns, -1)
        else:
            piece["pixels"] = patchify(pixels, self._layout.pixels_per_token)
        piece["positions"] = position_ids(rows, columns, self._layout.max_latent_size)
        piece["index"] = np.arange(len(piece))
        piece["image"] = self._latent_images
        self._latent_images += 1
        return piece

    def _patches(self, pixels: Pixels | Features) -> np.ndarray:
        """Returns the contents of ViT patches, one by one."""
        if self._layout.features:
            return pixels.reshape(-1, self._layout.features)
        return patchify(pixels, self._layout.vit_patch_size)

    def _patch_per_latent(self, pixels: np.ndarray) -> np.ndarray:
        """Returns ViT patches of the picture, at the size at which it has as many of them as latent tokens."""
        tokens, patch = self._layout.pixels_per_token, self._layout.vit_patch_size
        height, width = pixels.shape[:2]
        return patchify(resize(pixels, width // tokens * patch, height // tokens * patch), patch)

    def _image_delimiters(self, role: int, last: int, block: int) -> None:
        piece = self._piece("text", 2, role, block)
        piece["ids"] = (self._tokenizer.image_start, self._tokenizer.image_end)
        piece["order"] = (self._order, last)
        piece["last_visible"] = last
        piece["position"] = self._position

    def _inside_block(self, piece: np.ndarray, last: int) -> None:
        piece["order"] = self._order + 1 + np.arange(len(piece))
        piece["last_visible"] = last
        piece["position"] = self._position

    def _piece(self, region: str, tokens: int, role: int, block: int = 0) -> np.ndarray:
        piece = np.zeros(tokens, region_dtypes(self._layout)[region])
        piece["role"] = role
        piece["block"] = block
        for name, value in self._source.items():
            if name in piece.dtype.names:
                piece[name] = value
        self._pieces[region].append(piece)
        return piece

    def _delimited(self, ids: Sequence[int]) -> np.ndarray:
        return np.array([self._tokenizer.start, *ids, self._tokenizer.end], np.int32)
