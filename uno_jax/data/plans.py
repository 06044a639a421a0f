"""Sample plans: what a sample is made of, and post-training methods as functions from a record to a plan.

A plan is a tuple of items in the order of the logical sequence. It holds token ids and resized pixels, nothing that
depends on where the sample will lie in a batch. A method (`uno`, `sft`, ...) makes a *complete* plan; the condition
dropout and the choice of when to supervise are applied to it afterwards, from random draws of their own, so two
methods with the same seed drop the same conditions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from uno_jax.data.tokenizer import Tokenizer
from uno_jax.data.transforms import ImageTransform, decode_rgb

if TYPE_CHECKING:
    from uno_jax.data.records import Record

METHODS = ("uno", "uno_caption", "uno_visual", "sft", "reca", "pretrain")
Supervise = Literal["always", "prompt_dropped", "prompt_kept"]

Pixels = Any  # uint8 [height, width, 3], already at the size that the encoder sees


@dataclass(frozen=True, kw_only=True)
class Item:
    """What all items share."""

    droppable: bool = False
    """A condition: condition dropout may leave it out."""
    closing_label: int | None = None
    """Trains the token that follows the item's closing token to be this."""


@dataclass(frozen=True, kw_only=True)
class Text(Item):
    """Context text; `<|im_start|>` and `<|im_end|>` are put around the ids."""

    ids: tuple[int, ...]
    answer: bool = False
    """Cross-entropy on every token but the first: the ids and the closing token."""


@dataclass(frozen=True, kw_only=True)
class VitImage(Item):
    """A context image as ViT patches."""

    pixels: Pixels


@dataclass(frozen=True, kw_only=True)
class CleanLatents(Item):
    """A context image as latents, clean or, with `time_scale` > 0, lightly noised: t = time_scale * the drawn t."""

    pixels: Pixels
    time_scale: float = 0.0
    advance: int = 1
    """How far the next item's position moves on; frames of one clip set it to the time between them."""
    joins_next: bool = False
    """Shares its block with the next item (a frame of one clip): the frames see each other in both directions."""


@dataclass(frozen=True, kw_only=True)
class NoisedTarget(Item):
    """The image to generate: flow matching, and what supervises it."""

    pixels: Pixels
    caption: tuple[int, ...] | None = None
    """The caption that the understanding expert must write from the noised latents; None: no caption."""
    query_pixels: Pixels | None = None
    """The clean target at metaquery resolution; None: no metaqueries."""


@dataclass(frozen=True, kw_only=True)
class DroppedImage(Item):
    """What dropout leaves of an image: no tokens, but its step in position."""

    advance: int = 1


Plan = tuple[Item, ...]


@dataclass(frozen=True)
class MethodConfig:
    """What a method does with a record. `method` is one of METHODS."""

    method: str = "uno"
    text_dropout: float = 0.1
    vae_dropout: float = 0.3
    vit_dropout: float = 0.3
    supervise: Supervise = "always"
    """When captions and metaqueries are there: always, or only where the prompt was dropped, or was kept."""
    understanding_share: float = 0.5
    """`pretrain`: share of text-to-image records turned into captioning (image in, caption out)."""
    latent_share: float = 0.5
    """`pretrain`: share of those whose image is given as latents and not as ViT patches."""
    noised_share: float = 0.5
    """`pretrain`: share of those with latents whose latents are lightly noised and not clean."""
    noised_time_scale: float = 0.3
    """`pretrain`: t of lightly noised context latents = this * the drawn t."""

    @property
    def captions(self) -> bool:
        return self.method in ("uno", "uno_caption")

    @property
    def metaqueries(self) -> bool:
        return self.method in ("uno", "uno_visual")


@dataclass(frozen=True)
class Inputs:
    """What turns a record's text and pictures into ids and pixels."""

    tokenizer: Tokenizer
    vae_transform: ImageTransform
    vit_transform: ImageTransform
    metaquery_transform: ImageTransform


@dataclass(frozen=True)
class Sample:
    """A plan, and what the metrics know it by."""

    id: str
    task: str
    """One of `uno_jax.batch.TASKS`: the record's, except `reconstruction` (reca) and derived `understanding`."""
    plan: Plan
    without_caption: bool = False
    """A caption should supervise it, but the record has none that differs from the prompt."""


def make_sample(record: Record, config: MethodConfig, inputs: Inputs, rng: np.random.Generator) -> Sample:
    """The complete sample of a record under a method: nothing dropped, supervision always there.

    Raises:
      ValueError: a picture cannot be read (names record and field).
    """
    image = decode_rgb(record.image, f"record {record.id!r}, field image")
    if record.task == "understanding":
        return Sample(record.id, "understanding", _understanding_plan(image, record.prompt, record.answer, inputs))
    if config.method == "reca":
        context: Plan = (VitImage(pixels=inputs.vit_transform.resize(image), droppable=True),)
        target = NoisedTarget(pixels=inputs.vae_transform.resize(image))
        return Sample(record.id, "reconstruction", (*context, target))
    if config.method == "pretrain" and record.task == "text_to_image" and rng.random() < config.understanding_share:
        return _captioning_sample(record, image, config, inputs, rng)

    items: list[Item] = []
    for i, source in enumerate(record.sources):
        pixels = decode_rgb(source, f"record {record.id!r}, field sources[{i}]")
        items.append(CleanLatents(pixels=inputs.vae_transform.resize(pixels), droppable=True))
        items.append(VitImage(pixels=inputs.vit_transform.resize(pixels), droppable=True))
    items.append(Text(ids=tuple(inputs.tokenizer.encode(record.prompt)), droppable=True))
    caption = _choose_caption(record, inputs, rng) if config.captions else None
    query_pixels = inputs.metaquery_transform.resize(image) if config.metaqueries else None
    pixels = inputs.vae_transform.resize(image)
    items.append(NoisedTarget(pixels=pixels, caption=caption, query_pixels=query_pixels))
    return Sample(record.id, record.task, tuple(items), without_caption=config.captions and caption is None)


def drop_conditions(plan: Plan, config: MethodConfig, rng: np.random.Generator) -> Plan:
    """Condition dropout, one draw a droppable item; then supervision where `config.supervise` wants none is removed.

    A dropped text leaves nothing; a dropped image leaves its step in position.
    """
    rates: Mapping[type, float] = {
        Text: config.text_dropout,
        VitImage: config.vit_dropout,
        CleanLatents: config.vae_dropout,
    }
    kept: list[Item] = []
    prompt_dropped = False
    for item in plan:
        if not item.droppable or rng.random() >= rates[type(item)]:
            kept.append(item)
        elif isinstance(item, Text):
            prompt_dropped = True
        else:
            kept.append(DroppedImage(advance=item.advance if isinstance(item, CleanLatents) else 1))
    if config.supervise == ("prompt_kept" if prompt_dropped else "prompt_dropped"):
        kept = [replace(i, caption=None, query_pixels=None) if isinstance(i, NoisedTarget) else i for i in kept]
    return tuple(kept)


def _understanding_plan(image: Pixels, question: str, answer: str, inputs: Inputs) -> Plan:
    items: list[Item] = [VitImage(pixels=inputs.vit_transform.resize(image))]
    if question:
        items.append(Text(ids=tuple(inputs.tokenizer.encode(question))))
    items.append(Text(ids=tuple(inputs.tokenizer.encode(answer)), answer=True))
    return tuple(items)


def _captioning_sample(
    record: Record, image: Pixels, config: MethodConfig, inputs: Inputs, rng: np.random.Generator
) -> Sample:
    """Image in, caption out: the understanding expert learns to read ViT tokens and (noised) latents alike."""
    texts = (record.prompt, *record.captions)
    answer = Text(ids=tuple(inputs.tokenizer.encode(texts[rng.integers(len(texts))])), answer=True)
    if rng.random() < config.latent_share:
        scale = config.noised_time_scale if rng.random() < config.noised_share else 0.0
        context: Item = CleanLatents(pixels=inputs.vae_transform.resize(image), time_scale=scale)
    else:
        context = VitImage(pixels=inputs.vit_transform.resize(image))
    return Sample(record.id, "understanding", (context, answer))


def _choose_caption(record: Record, inputs: Inputs, rng: np.random.Generator) -> tuple[int, ...] | None:
    """One of the captions, never the prompt itself; None when there is no other."""
    captions = [caption for caption in record.captions if caption.strip() != record.prompt.strip()]
    if not captions:
        return None
    return tuple(inputs.tokenizer.encode(captions[rng.integers(len(captions))]))
