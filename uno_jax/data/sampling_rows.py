"""Batches for sampling: one sample per row, split into parts that are read at once, padded to buckets of lengths."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from uno_jax.batch import REGIONS, Batch, Layout, PixelBatch, TokenBatch
from uno_jax.data.layout import Regions, lay_out, sample_lengths
from uno_jax.data.plans import CleanLatents, NoisedTarget, Plan, Text, VitImage
from uno_jax.data.rows import make_batch, pack_row
from uno_jax.data.tokenizer import Tokenizer

# Buckets between one power of two and the next. Latents get more of them, for less padding, because they are computed
# at every step. Contexts are read once, and their lengths differ from prompt to prompt.
CONTEXT_LENGTHS, LATENT_LENGTHS = 4, 8
SHORTEST_STEP = 8


def context_bucket(tokens: int) -> int:
    """Returns the padded length of a region of `tokens` context tokens: 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, ..

    Programs are compiled per bucket.
    """
    return _bucket(tokens, CONTEXT_LENGTHS)


def latent_bucket(tokens: int) -> int:
    """Returns the padded length of a picture's latents: 8, 16, 24, .., 128, 144, 160, .., 2048, 2304, .., 4096."""
    return _bucket(tokens, LATENT_LENGTHS)


def _bucket(tokens: int, lengths: int) -> int:
    step = max(1 << max(tokens - 1, 0).bit_length() >> 1, SHORTEST_STEP * lengths) // lengths
    return -(-tokens // step) * step


def token_count(plan: Plan, layout: Layout) -> int:
    """Returns the number of tokens of a plan, which is also the `order` of the first token after it."""
    return sum(sample_lengths(plan, layout).values())


def part(regions: Regions, start: int, stop: int | None = None) -> Regions:
    """Selects the tokens with `start <= order < stop`."""
    stop = np.iinfo(np.int32).max if stop is None else stop
    return {name: x[(start <= x["order"]) & (x["order"] < stop)] for name, x in regions.items()}


def caption_parts(
    context: Plan, target: NoisedTarget, layout: Layout, tokenizer: Tokenizer, *, occurrence: int
) -> tuple[Regions, Regions]:
    """Lays out a noised target after its context, and separately the delimiters of a caption of the target."""
    tokens = token_count((*context, NoisedTarget(pixels=target.pixels)), layout)
    captioned = (*context, NoisedTarget(pixels=target.pixels, caption=()))
    regions = lay_out(captioned, layout, tokenizer, occurrence=occurrence)
    return part(regions, 0, tokens), part(regions, tokens)


def context_batch(samples: Sequence[Regions], layout: Layout, rows: int | None = None) -> PixelBatch | Batch:
    """Makes a context batch with one sample, or part of a sample, per row. Remaining rows are padding.

    Every region is padded to the bucket of its longest sample.
    """
    capacities = {region: context_bucket(tokens) for region, tokens in _longest(samples).items()}
    return _batch(samples, capacities | {"latent": latent_bucket(_longest(samples)["latent"])}, layout, rows)


def target_batch(samples: Sequence[Regions], layout: Layout, rows: int | None = None) -> TokenBatch:
    """Makes a batch of noised blocks, one per row, without pixels.

    Delimiters are not padded. Latents are padded to the bucket of the longest block.
    """
    capacities = _longest(samples)
    batch = _batch(samples, capacities | {"latent": latent_bucket(capacities["latent"])}, layout, rows)
    return TokenBatch(**batch.shared())


def _longest(samples: Sequence[Regions]) -> dict[str, int]:
    return {region: max(len(sample[region]) for sample in samples) for region in REGIONS}


def _batch(
    samples: Sequence[Regions], capacities: dict[str, int], layout: Layout, rows: int | None
) -> PixelBatch | Batch:
    empty: list[list[Regions]] = [[]] * (0 if rows is None else rows - len(samples))
    return make_batch([pack_row(row, capacities, layout) for row in [[sample] for sample in samples] + empty])


def without_last_text(context: Plan) -> Plan:
    """Returns the context without its final text, for text guidance. A context that ends in an image is unchanged."""
    return context[:-1] if context and isinstance(context[-1], Text) else context


def texts_alone(context: Plan) -> Plan | None:
    """Returns only the texts of the context, for image guidance, or None if the context has no image."""
    texts = tuple(item for item in context if isinstance(item, Text))
    return texts if any(isinstance(item, (CleanLatents, VitImage)) for item in context) else None
