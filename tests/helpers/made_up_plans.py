"""Small made-up plans: named ones, random ones, and a slow reference of their attention mask."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from tests.helpers.made_up_records import LAYOUT, small_tokenizer
from uno_jax.attention.metadata import TokenMetadata
from uno_jax.batch import REGIONS, TASKS, PixelBatch, TokenBatch
from uno_jax.data.layout import lay_out
from uno_jax.data.plans import CleanLatents, DroppedImage, NoisedTarget, Plan, Text, VitImage
from uno_jax.data.rows import make_batch, pack_row

TOKENIZER = small_tokenizer()
ROOMY = dict.fromkeys(REGIONS, 400)


class Sample(NamedTuple):
    """A plan with its occurrence. A plan without one gets its index in the row."""

    plan: Plan
    occurrence: int
    task: str = TASKS[0]


def pixels(rows: int, columns: int, patch: int, seed: int = 0) -> np.ndarray:
    """Returns a random picture of rows x columns patches."""
    rng = np.random.default_rng((rows, columns, seed))
    return rng.integers(0, 256, (rows * patch, columns * patch, 3), np.uint8)


def latents_of(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    """Returns a random picture of rows x columns latent tokens."""
    return pixels(rows, columns, LAYOUT.pixels_per_token, seed)


def patches_of(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    """Returns a random picture of rows x columns ViT patches."""
    return pixels(rows, columns, LAYOUT.vit_patch_size, seed)


TARGET = NoisedTarget(pixels=latents_of(2, 2, seed=1), caption=(1, 2, 3), query_pixels=patches_of(2, 1, seed=1))
"""A noised target with a caption and two metaqueries."""

TEXT_TO_IMAGE: Plan = (Text(ids=(4, 5, 6)), TARGET)
EDITING: Plan = (
    CleanLatents(pixels=latents_of(1, 2, seed=2)),
    VitImage(pixels=patches_of(1, 2, seed=2)),
    Text(ids=(7, 8)),
    NoisedTarget(pixels=latents_of(1, 2, seed=3), caption=(9, 10), query_pixels=patches_of(2, 2, seed=3)),
)
SECOND_ROUND: Plan = (
    *TEXT_TO_IMAGE,
    CleanLatents(pixels=TARGET.pixels),
    VitImage(pixels=TARGET.query_pixels),
    Text(ids=(11,)),
    NoisedTarget(pixels=latents_of(2, 1, seed=4), caption=(12,), query_pixels=patches_of(1, 1, seed=4)),
)
"""Two rounds of editing: the noised target of the first is a clean source of the second."""
HIDDEN: Plan = (replace(TARGET, flow=False), Text(ids=(4, 5, 6)), NoisedTarget(pixels=TARGET.pixels))
"""`TEXT_TO_IMAGE` with the prompt hidden from supervision."""
UNDERSTANDING: Plan = (VitImage(pixels=patches_of(2, 2, seed=5)), Text(ids=(13,)), Text(ids=(14, 15), answer=True))
RECONSTRUCTION: Plan = (
    VitImage(pixels=patches_of(1, 1, seed=6)),
    NoisedTarget(pixels=latents_of(1, 1, seed=6)),
)
NAMED: tuple[Plan, ...] = (TEXT_TO_IMAGE, EDITING, SECOND_ROUND, UNDERSTANDING, RECONSTRUCTION)

ids = st.lists(st.integers(0, 255), max_size=4).map(tuple)
_grid = st.tuples(st.integers(1, 2), st.integers(1, 2))
_latents = _grid.map(lambda side: latents_of(*side))
_patches = _grid.map(lambda side: patches_of(*side))
_texts = st.builds(Text, ids=ids, answer=st.booleans())
_vit_images = st.builds(VitImage, pixels=_patches)
_clean = st.builds(CleanLatents, pixels=_latents, time_scale=st.sampled_from([0.0, 0.5]))
_targets = st.builds(NoisedTarget, pixels=_latents, caption=st.none() | ids, query_pixels=st.none() | _patches)
_items = _texts | _vit_images | _clean | _targets | st.just(DroppedImage())


def plans(most_items: int = 5) -> st.SearchStrategy[Plan]:
    """Generates random items in any order: text, answers, images, and noised targets with or without supervision."""
    return st.lists(_items, min_size=1, max_size=most_items).map(tuple)


def batch_of(*rows, capacities=ROOMY, layout=LAYOUT) -> PixelBatch:
    """Makes a batch whose rows hold the given plans or `Sample`s."""
    packed = []
    for row in rows:
        samples = [x if isinstance(x, Sample) else Sample(x, i) for i, x in enumerate(row)]
        regions = [lay_out(s.plan, layout, TOKENIZER, occurrence=s.occurrence, task=s.task) for s in samples]
        packed.append(pack_row(regions, capacities, layout))
    return make_batch(packed)


def row_metadata(batch: TokenBatch, row: int) -> TokenMetadata:
    """Returns the metadata of one row, both buffers concatenated, `[U + G]`."""
    return TokenMetadata(
        *(np.concatenate([a[row], b[row]]) for a, b in zip(batch.understanding, batch.generation, strict=True))
    )


def sequence_of(batch: TokenBatch, row: int, sample: int) -> TokenMetadata:
    """Returns the metadata of one sample, both buffers concatenated, in logical order."""
    metadata = row_metadata(batch, row)
    keep = np.flatnonzero(metadata.sample == sample)
    keep = keep[np.argsort(metadata.order[keep], kind="stable")]
    return TokenMetadata(*(field[keep] for field in metadata))


@dataclass(frozen=True)
class SlowToken:
    """A token of the slow reference."""

    kind: str  # text, clean, noised, caption, query
    group: int  # tokens of one text, one image block, one caption, one set of metaqueries share it
    block: int  # index of its noised block, from 1; 0 = none
    position: int
    region: str  # region of the batch; tokens keep their order within it


def slow_sequence(plan: Plan) -> list[SlowToken]:
    """Returns the tokens of a plan in logical order."""
    tokens, position, group, block = [], 0, 0, 0

    def image(kind: str, pixels: np.ndarray, region: str) -> None:
        patch = LAYOUT.vit_patch_size if region == "vit" else LAYOUT.pixels_per_token
        inside = [region] * (pixels.size // (3 * patch * patch))
        tokens.extend(
            SlowToken(kind, group, block * (kind == "noised"), position, r) for r in ("text", *inside, "text")
        )

    for item in plan:
        group += 1
        if isinstance(item, DroppedImage):
            position += 1
        elif isinstance(item, Text):
            for _ in range(len(item.ids) + 2):
                tokens.append(SlowToken("text", group, 0, position, "text"))
                position += 1
        elif isinstance(item, VitImage):
            image("clean", item.pixels, "vit")
            position += 1
        elif isinstance(item, CleanLatents):
            image("clean", item.pixels, "latent")
            position += 1
        else:
            block += 1
            image("noised", item.pixels, "latent")
            if item.caption is not None:
                group += 1
                for i in range(len(item.caption) + 2):
                    tokens.append(SlowToken("caption", group, block, position + 1 + i, "caption"))
            if item.query_pixels is not None:
                group += 1
                count = item.query_pixels.size // (3 * LAYOUT.vit_patch_size**2)
                tokens += [SlowToken("query", group, block, position + 1, "query")] * count
    return tokens


def slow_visible(tokens: list[SlowToken], i: int, j: int) -> bool:
    """Whether token i may attend to token j of the same sample."""
    query, key = tokens[i], tokens[j]
    if query.group == key.group:
        return j <= i if query.kind in ("text", "caption") else True
    if query.kind in ("text", "clean", "noised"):
        return key.kind in ("text", "clean") and j < i
    return key.kind == "noised" and key.block == query.block


def slow_mask(plan: Plan) -> np.ndarray:
    """Returns bool `[tokens, tokens]`, True where the row's token attends to the column's."""
    tokens = slow_sequence(plan)
    count = len(tokens)
    return np.array([[slow_visible(tokens, i, j) for j in range(count)] for i in range(count)], bool).reshape(
        count, count
    )


def places_of(plan: Plan, batch: TokenBatch) -> np.ndarray:
    """Returns the indices in `[U + G]` of the tokens of a row's first plan, in logical order.

    Uses only the order of tokens within each region, not the field `order`.
    """
    widths = [batch.text_ids, batch.vit_image, batch.caption_ids, batch.query_index, batch.latent_index]
    starts = np.cumsum([0] + [x.shape[1] for x in widths])
    used = dict(zip(REGIONS, starts, strict=False))
    places = []
    for token in slow_sequence(plan):
        places.append(used[token.region])
        used[token.region] += 1
    return np.array(places, int)
