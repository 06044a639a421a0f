"""Post-training methods: each is a function from a record to a sample, and has a name in `METHODS`.

To add a method, write its function and give it a row in `METHODS`. The room that a batch must have for it, and what
`aot` compiles, follow from the samples that the function makes (`largest.py`).

A method makes a *complete* sample: nothing dropped, supervision always there. Condition dropout comes afterwards
(`dropout.py`) and has random draws of its own, so two methods with the same seed drop the same conditions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from uno_jax.data.plans import CleanLatents, Item, NoisedTarget, Pixels, Plan, Text, VitImage
from uno_jax.data.record import Record
from uno_jax.data.tokenizer import Tokenizer
from uno_jax.data.transforms import ImageTransform, decode_rgb


@dataclass(frozen=True)
class MethodConfig:
    """Which method makes the samples, what it may choose, and how conditions are dropped."""

    method: str = "uno"
    """A name in `METHODS`."""
    text_dropout: float = 0.1
    vae_dropout: float = 0.3
    vit_dropout: float = 0.3
    supervise: Literal["always", "prompt_dropped", "prompt_kept"] = "always"
    """When captions and metaqueries are there: always, or only where the prompt was dropped, or was kept."""
    understanding_share: float = 0.5
    """`pretrain`: share of text-to-image records turned into captioning (image in, caption out)."""
    latent_share: float = 0.5
    """`pretrain`: share of those whose image is given as latents and not as ViT patches."""
    noised_share: float = 0.5
    """`pretrain`: share of those with latents whose latents are lightly noised and not clean."""
    noised_time_scale: float = 0.3
    """`pretrain`: t of lightly noised context latents = this * the drawn t."""


@dataclass(frozen=True)
class Inputs:
    """Turns a record's text and pictures into ids and pixels."""

    tokenizer: Tokenizer
    vae_transform: ImageTransform
    vit_transform: ImageTransform
    metaquery_transform: ImageTransform


@runtime_checkable
class Draws(Protocol):
    """The random numbers that a method may ask for; a `np.random.Generator` gives them."""

    def random(self) -> float:
        """Uniform in [0, 1)."""

    def integers(self, high: int, /) -> int:
        """Uniform in 0, 1, .., high - 1."""


@dataclass(frozen=True)
class Given:
    """All that a method makes a sample of."""

    record: Record
    """Of a task with a target picture."""
    image: Pixels
    """The record's target picture, decoded and not yet resized."""
    config: MethodConfig
    inputs: Inputs
    draws: Draws


@dataclass(frozen=True)
class Sample:
    """A plan, and what the metrics know it by."""

    id: str
    task: str
    """One of `uno_jax.batch.TASKS`: the record's, except `reconstruction` (reca) and derived `understanding`."""
    plan: Plan
    without_caption: bool = False
    """A caption should supervise it, but the record has none that differs from the prompt."""


def make_sample(record: Record, config: MethodConfig, inputs: Inputs, draws: Draws) -> Sample:
    """Makes the complete sample of a record: a question about a picture by itself, any other record by the method.

    Raises:
      ValueError: a picture cannot be read (names record and field).
    """
    image = decode_rgb(record.image, f"record {record.id!r}, field image")
    if record.task == "understanding":
        return Sample(record.id, record.task, _question(record, image, inputs))
    return METHODS[config.method](Given(record, image, config, inputs, draws))


def uno(given: Given) -> Sample:
    """Flow matching, with a caption and metaqueries after the noised target."""
    return _generation(given, caption=True, metaqueries=True)


def uno_caption(given: Given) -> Sample:
    """`uno` without metaqueries."""
    return _generation(given, caption=True)


def uno_visual(given: Given) -> Sample:
    """`uno` without a caption."""
    return _generation(given, metaqueries=True)


def sft(given: Given) -> Sample:
    """Flow matching alone."""
    return _generation(given)


def reca(given: Given) -> Sample:
    """Reconstruction alignment: the target's own ViT patches are the context."""
    context = VitImage(pixels=given.inputs.vit_transform.resize(given.image), droppable=True)
    target = NoisedTarget(pixels=given.inputs.vae_transform.resize(given.image))
    return Sample(given.record.id, "reconstruction", (context, target))


def pretrain(given: Given) -> Sample:
    """Flow matching, except for a share of the text-to-image records: their picture in, one of their texts out.

    So the understanding expert learns to read ViT patches and clean and lightly noised latents alike.
    """
    record, config, inputs, draws = given.record, given.config, given.inputs, given.draws
    if record.task != "text_to_image" or draws.random() >= config.understanding_share:
        return sft(given)
    texts = (record.prompt, *record.captions)
    answer = _text(texts[draws.integers(len(texts))], inputs, answer=True)
    if draws.random() >= config.latent_share:
        context: Item = VitImage(pixels=inputs.vit_transform.resize(given.image))
    else:
        time_scale = config.noised_time_scale if draws.random() < config.noised_share else 0.0
        context = CleanLatents(pixels=inputs.vae_transform.resize(given.image), time_scale=time_scale)
    return Sample(record.id, "understanding", (context, answer))


Method = Callable[[Given], Sample]

METHODS: Mapping[str, Method] = {
    "uno": uno,
    "uno_caption": uno_caption,
    "uno_visual": uno_visual,
    "sft": sft,
    "reca": reca,
    "pretrain": pretrain,
}


def _generation(given: Given, *, caption: bool = False, metaqueries: bool = False) -> Sample:
    """The sources and the prompt, then the noised target with what supervises it."""
    record, inputs = given.record, given.inputs
    items: list[Item] = []
    for i, source in enumerate(record.sources):
        pixels = decode_rgb(source, f"record {record.id!r}, field sources[{i}]")
        items.append(CleanLatents(pixels=inputs.vae_transform.resize(pixels), droppable=True))
        items.append(VitImage(pixels=inputs.vit_transform.resize(pixels), droppable=True))
    items.append(_text(record.prompt, inputs, droppable=True))
    target = NoisedTarget(
        pixels=inputs.vae_transform.resize(given.image),
        caption=_caption(given) if caption else None,
        query_pixels=inputs.metaquery_transform.resize(given.image) if metaqueries else None,
    )
    without_caption = caption and target.caption is None
    return Sample(record.id, record.task, (*items, target), without_caption=without_caption)


def _caption(given: Given) -> tuple[int, ...] | None:
    """One of the captions, never the prompt itself; None when there is no other."""
    record = given.record
    captions = [caption for caption in record.captions if caption.strip() != record.prompt.strip()]
    if not captions:
        return None
    return tuple(given.inputs.tokenizer.encode(captions[given.draws.integers(len(captions))]))


def _question(record: Record, image: Pixels, inputs: Inputs) -> Plan:
    """The picture, the question where there is one, and the answer."""
    items: list[Item] = [VitImage(pixels=inputs.vit_transform.resize(image))]
    if record.prompt:
        items.append(_text(record.prompt, inputs))
    return (*items, _text(record.answer, inputs, answer=True))


def _text(text: str, inputs: Inputs, *, droppable: bool = False, answer: bool = False) -> Text:
    return Text(ids=tuple(inputs.tokenizer.encode(text)), droppable=droppable, answer=answer)
