"""The largest samples that a method can make, which determine the minimum capacity of a row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from uno_jax.batch import REGIONS, Layout
from uno_jax.data.config import DataConfig
from uno_jax.data.layout import sample_lengths
from uno_jax.data.methods import Draws, Inputs, Sample, make_sample
from uno_jax.data.plans import Pixels
from uno_jax.data.record import Record
from uno_jax.data.sizes import blank
from uno_jax.data.tokenizer import byte_tokenizer
from uno_jax.data.transforms import ImageTransform, encode_png

JUST_BELOW_ONE = float(np.nextafter(1.0, 0.0))


def needed_tokens(config: DataConfig, layout: Layout, task: str) -> dict[str, int]:
    """Returns the maximum tokens per region of a sample of `task` whose texts have one token each."""
    samples = [sample_lengths(sample.plan, layout) for sample in largest_samples(config, task)]
    return {region: max(lengths[region] for lengths in samples) for region in REGIONS}


def largest_samples(config: DataConfig, task: str, *, prompt_tokens: int = 1, caption_tokens: int = 1) -> list[Sample]:
    """Runs the method on the largest record of `task`, once per possible outcome of its random draws.

    Every picture has the maximum size of its transform and zero pixels. An edit has one source.
    """
    picture = encode_png(Image.new("RGB", (1, 1)))
    record = Record(
        id="largest",
        task=task,
        image=picture,
        prompt="p" * prompt_tokens,
        captions=("c" * caption_tokens,),
        sources=(picture,) if task == "editing" else (),
        answer="a",
    )
    transforms = (config.vae_transform, config.vit_transform, config.metaquery_transform)
    vae, vit, metaqueries = (_Largest(x.max_side, x.min_side, x.stride) for x in transforms)
    inputs = Inputs(byte_tokenizer(), vae, vit, metaqueries)
    return list(_every_outcome(lambda draws: make_sample(record, config, inputs, draws)))


class _Largest(ImageTransform):
    """Resizes every picture to the maximum size."""

    def resize(self, pixels: Pixels, stored: tuple[int, int] | None = None) -> Pixels:
        return blank(self.largest_side, self.largest_side)


def _every_outcome(make: Callable[[Draws], Sample], chosen: Iterable[Any] = ()) -> Iterator[Sample]:
    """Calls `make` with the draws `chosen`. If it asks for another draw, tries each possible outcome of that draw."""
    try:
        sample = make(_ChosenDraws(chosen))
    except _OneMoreDraw as draw:
        for outcome in draw.outcomes:
            yield from _every_outcome(make, (*chosen, outcome))
    else:
        yield sample


class _OneMoreDraw(Exception):
    def __init__(self, outcomes: Sequence[Any]):
        super().__init__()
        self.outcomes = outcomes


class _ChosenDraws:
    """`Draws` with predetermined outcomes.

    Raises:
      _OneMoreDraw: all outcomes are used up.
    """

    def __init__(self, chosen: Iterable[Any]):
        self._chosen = iter(chosen)

    def random(self) -> float:
        # Any probability strictly between 0 and 1 separates these two.
        return float(self._next((0.0, JUST_BELOW_ONE)))

    def integers(self, high: int, /) -> int:
        return int(self._next(range(high)))

    def _next(self, outcomes: Sequence[Any]) -> Any:
        for draw in self._chosen:
            return draw
        raise _OneMoreDraw(outcomes)
