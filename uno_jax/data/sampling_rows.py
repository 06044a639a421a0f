"""Plans laid out for sampling: one sample a row, cut into what is read at once, padded to few different lengths."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from uno_jax.batch import REGIONS, Layout, PixelBatch, TokenBatch
from uno_jax.data.layout import Regions, sample_lengths
from uno_jax.data.plans import CleanLatents, Plan, Text, VitImage
from uno_jax.data.rows import make_batch, pack_row

# Lengths that occur between one power of two and the next. Latents are computed at every step, so they are padded
# less; contexts are read once, and differ in length from prompt to prompt.
CONTEXT_LENGTHS, LATENT_LENGTHS = 4, 8
SHORTEST_STEP = 8


def context_bucket(tokens: int) -> int:
    """The length that so many context tokens of a region are padded to: 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, ..

    A program is compiled for each bucket that occurs, and for no length between.
    """
    return _bucket(tokens, CONTEXT_LENGTHS)


def latent_bucket(tokens: int) -> int:
    """The same of a picture's latents: 8, 16, 24, .., 128, 144, 160, .., 2048, 2304, .., 4096."""
    return _bucket(tokens, LATENT_LENGTHS)


def _bucket(tokens: int, lengths: int) -> int:
    step = max(1 << max(tokens - 1, 0).bit_length() >> 1, SHORTEST_STEP * lengths) // lengths
    return -(-tokens // step) * step


def token_count(plan: Plan, layout: Layout) -> int:
    """Tokens of a plan, and so the order of the first token of what follows it."""
    return sum(sample_lengths(plan, layout).values())


def part(regions: Regions, start: int, stop: int | None = None) -> Regions:
    """The tokens whose order is at least `start` and less than `stop`."""
    stop = np.iinfo(np.int32).max if stop is None else stop
    return {name: x[(start <= x["order"]) & (x["order"] < stop)] for name, x in regions.items()}


def context_batch(samples: Sequence[Regions], layout: Layout, rows: int | None = None) -> PixelBatch:
    """A batch of context, one (part of a) sample a row; rows that are left over are padding.

    Every region is as long as the bucket of its longest.
    """
    capacities = {region: context_bucket(tokens) for region, tokens in _longest(samples).items()}
    return _batch(samples, capacities | {"latent": latent_bucket(_longest(samples)["latent"])}, layout, rows)


def target_batch(samples: Sequence[Regions], layout: Layout, rows: int | None = None) -> TokenBatch:
    """A batch of noised blocks, one a row, whose pixels are not known.

    There are as many delimiters as a block has; latents are padded to the bucket of the longest.
    """
    capacities = _longest(samples)
    batch = _batch(samples, capacities | {"latent": latent_bucket(capacities["latent"])}, layout, rows)
    return TokenBatch(**batch.shared())


def _longest(samples: Sequence[Regions]) -> dict[str, int]:
    return {region: max(len(sample[region]) for sample in samples) for region in REGIONS}


def _batch(samples: Sequence[Regions], capacities: dict[str, int], layout: Layout, rows: int | None) -> PixelBatch:
    empty: list[list[Regions]] = [[]] * (0 if rows is None else rows - len(samples))
    return make_batch([pack_row(row, capacities, layout) for row in [[sample] for sample in samples] + empty])


def without_last_text(context: Plan) -> Plan:
    """The context of guidance by text: all but the text that ends it (the whole, where an image ends it)."""
    return context[:-1] if context and isinstance(context[-1], Text) else context


def texts_alone(context: Plan) -> Plan | None:
    """The context of guidance by images: nothing but its texts, as if no image had been there.

    None where there is none.
    """
    texts = tuple(item for item in context if isinstance(item, Text))
    return texts if any(isinstance(item, (CleanLatents, VitImage)) for item in context) else None
