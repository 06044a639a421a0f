"""What the manifest says of the records: histograms of their texts and pictures."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from typing import Any

from uno_jax.data.conversion.parts import Facts

_TOKENS = (8, 16, 32, 64, 128, 256, 512, 1024, 2048)
_SIDES = (64, 128, 256, 512, 768, 1024, 1536, 2048, 3072, 4096)
_ASPECTS = (0.25, 0.34, 0.5, 0.67, 0.8, 0.95, 1.05, 1.25, 1.5, 2.0, 3.0, 4.0)

BINS: dict[str, tuple[float, ...]] = {
    "prompt_tokens": _TOKENS,
    "caption_tokens": _TOKENS,
    "answer_tokens": _TOKENS,
    "longest_side": _SIDES,
    "shortest_side": _SIDES,
    "aspect_ratio": _ASPECTS,
}
"""The histograms, and the largest value of each of their bins but the last, which has all larger ones. An aspect ratio
is width / height."""


def histograms(records: Iterable[Facts], length: Callable[[str], int]) -> dict[str, Any]:
    """Returns histograms of prompts, captions, answers (in tokens) and pictures (in pixels).

    Args:
      records: facts of the records.
      length: returns the number of tokens of a text.
    """
    counts = {name: [0] * (len(bins) + 1) for name, bins in BINS.items()}

    def count(name: str, value: float) -> None:
        counts[name][bisect_left(BINS[name], value)] += 1

    for record in records:
        for name, texts in (
            ("prompt_tokens", (record.prompt,)),
            ("caption_tokens", record.captions),
            ("answer_tokens", (record.answer,)),
        ):
            for text in filter(None, texts):
                count(name, length(text))
        for width, height in record.sizes:
            count("longest_side", max(width, height))
            count("shortest_side", min(width, height))
            count("aspect_ratio", width / height)
    return {name: {"up_to": list(BINS[name]), "count": counts[name]} for name in BINS}
