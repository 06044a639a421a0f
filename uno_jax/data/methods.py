"""Post-training methods: functions from a record to a sample, registered by name in `METHODS`.

To add a method, write its function and add a row to `METHODS`. The required row capacity, and the shapes that `aot`
compiles, follow from the samples that the function makes (`largest.py`).

A method makes a *complete* sample, with every condition and all supervision. Condition dropout runs afterwards
(`dropout.py`) with a random generator of its own, so two methods with the same seed drop the same conditions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, runtime_checkable

from uno_jax.data.decoding import LARGEST_PICTURE, decode_rgb, picture_size
from uno_jax.data.plans import (
    CleanLatents,
    Features,
    Item,
    Moments,
    NoisedTarget,
    PatchUse,
    Pixels,
    Plan,
    Text,
    VitImage,
)
from uno_jax.data.record import EncodedRecord, Record
from uno_jax.data.tokenizer import Tokenizer
from uno_jax.data.transforms import ImageTransform


@dataclass(frozen=True)
class MethodConfig:
    """The post-training method, its options, and condition dropout."""

    method: str = "uno"
    """A name in `METHODS`."""
    text_dropout: float = 0.1
    vae_dropout: float = 0.3
    vit_dropout: float = 0.3
    supervise: Literal["always", "prompt_dropped", "prompt_kept", "hidden"] = "always"
    """When samples have captions and metaqueries: always, or only if the prompt was dropped, or only if it was kept.
    `hidden`: always, but they read a second noised block of the same target, which does not see the prompt."""
    understanding_share: float = 0.5
    """`pretrain`: fraction of text-to-image records used for captioning (image in, caption out)."""
    recaption_share: float = 0.0
    """`pretrain`: fraction of the other text-to-image records whose prompt is a caption, as for `sft_recaption`."""
    latent_share: float = 0.5
    """`pretrain`: fraction of understanding samples whose image is given as latents instead of ViT patches."""
    noised_share: float = 0.5
    """`pretrain`: fraction of understanding samples with latents whose latents are lightly noised instead of clean."""
    noised_time_scale: float = 0.3
    """`pretrain`: lightly noised context latents use t = `noised_time_scale` * the sampled t."""


@dataclass(frozen=True)
class Inputs:
    """The tokenizer and image transforms that turn a record into ids and pixels."""

    tokenizer: Tokenizer
    vae_transform: ImageTransform
    vit_transform: ImageTransform
    metaquery_transform: ImageTransform
    max_picture_pixels: int = LARGEST_PICTURE
    """Maximum number of pixels of a stored picture, before it is resized."""
    reduced_jpeg: bool = False
    """Whether JPEG files are decoded at a reduced size, if that suffices for all transforms."""

    def decode(self, encoded: bytes, record: Record, field: str) -> Pixels:
        """Decodes a picture of a record; PictureError names both."""
        scale_of = self._scale if self.reduced_jpeg else None
        return decode_rgb(encoded, picture_name(record, field), self.max_picture_pixels, scale_of)

    def picture(self, record: Record, number: int) -> Pixels:
        """Decodes a picture of a record by number: 0 the target, from 1 the sources; PictureError names both."""
        return self.decode(*_picture(record, number))

    def patch_transform(self, use: PatchUse) -> ImageTransform:
        """Returns the transform of pictures whose patches are for a use."""
        return self.vit_transform if use == "vit" else self.metaquery_transform

    def stored_size(self, record: Record, number: int) -> tuple[int, int] | None:
        """Returns width and height of a stored picture; None if it is not decoded at a reduced size."""
        if not self.reduced_jpeg:
            return None
        encoded, _, field = _picture(record, number)
        return picture_size(encoded, picture_name(record, field), self.max_picture_pixels)

    def _scale(self, width: int, height: int) -> float:
        transforms = (self.vae_transform, self.vit_transform, self.metaquery_transform)
        return max(transform.scale(width, height) for transform in transforms)


def picture_name(record: Record, field: str) -> str:
    """Names a picture of a record in messages."""
    return f"record {record.id!r}, field {field}"


def _picture(record: Record, number: int) -> tuple[bytes, Record, str]:
    """Returns the arguments of `Inputs.decode` for a picture."""
    if number == 0:
        return record.image, record, "image"
    return record.sources[number - 1], record, f"sources[{number - 1}]"


@runtime_checkable
class Draws(Protocol):
    """Random numbers for a method, a subset of `np.random.Generator`."""

    def random(self) -> float:
        """Returns a float, uniform in [0, 1)."""

    def integers(self, high: int, /) -> int:
        """Returns an integer, uniform in 0, 1, .., high - 1."""


@dataclass(frozen=True)
class Given:
    """Arguments of a method."""

    record: Record
    """A record of a task with a target picture."""
    config: MethodConfig
    inputs: Inputs
    draws: Draws
    _decoded: dict[int, tuple[Pixels, tuple[int, int] | None]] = field(default_factory=dict, init=False)

    def picture(self, transform: ImageTransform, number: int = 0) -> Pixels:
        """Returns a picture of the record, resized by a transform: 0 the target, from 1 the sources.

        Each picture is decoded once.

        Raises:
          PictureError: it cannot be decoded.
        """
        if number not in self._decoded:
            pixels = self.inputs.picture(self.record, number)
            self._decoded[number] = pixels, self.inputs.stored_size(self.record, number)
        return transform.resize(*self._decoded[number])

    def latents(self, number: int = 0) -> Pixels | Moments:
        """Returns what a picture's latent tokens are made of: its pixels, resized, or its precomputed moments.

        Raises:
          PictureError: as for `picture`.
        """
        if isinstance(self.record, EncodedRecord) and self.record.pictures is not None:
            return self.record.moments(number)
        return self.picture(self.inputs.vae_transform, number)

    def patches(self, use: PatchUse, number: int = 0) -> Pixels | Features:
        """Returns what a picture's patches are made of: its pixels, resized, or its precomputed vision features.

        Raises:
          PictureError: as for `picture`.
        """
        if isinstance(self.record, EncodedRecord) and self.record.features is not None:
            return self.record.vision_features(use, number)
        return self.picture(self.inputs.patch_transform(use), number)


@dataclass(frozen=True)
class Sample:
    """A plan, with the id and task under which metrics report it."""

    id: str
    task: str
    """One of `uno_jax.batch.TASKS`: the record's task, except for `reconstruction` (`reca`) and `understanding` samples
    that `pretrain` derives."""
    plan: Plan
    without_caption: bool = False
    """Whether the method wanted a caption but the record has none that differs from the prompt."""


def make_sample(record: Record, config: MethodConfig, inputs: Inputs, draws: Draws) -> Sample:
    """Makes the complete sample of a record.

    Understanding records are the same under every method, except that `pretrain` shows some pictures as latents.

    Raises:
      PictureError: a picture cannot be decoded. The message names record and field.
    """
    given = Given(record, config, inputs, draws)
    if record.task == "understanding":
        picture = _picture_to_read(given) if config.method == "pretrain" else _vit_image(given)
        return Sample(record.id, record.task, (picture, *_question(record, inputs)))
    return METHODS[config.method](given)


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
    """Flow matching only."""
    return _generation(given)


def sft_recaption(given: Given) -> Sample:
    """`sft` with a random caption in place of the prompt. A record without other captions keeps its prompt."""
    caption = _caption(given)
    sample = sft(given)
    if caption is None:
        return replace(sample, without_caption=True)
    *sources, _, target = sample.plan
    return replace(sample, plan=(*sources, Text(ids=caption, droppable=True), target))


def reca(given: Given) -> Sample:
    """Reconstruction alignment: the target's own ViT patches are the context."""
    context = VitImage(pixels=given.patches("vit"), droppable=True)
    target = NoisedTarget(pixels=given.latents())
    return Sample(given.record.id, "reconstruction", (context, target))


def pretrain(given: Given) -> Sample:
    """Flow matching, with a fraction of the text-to-image records used for captioning.

    The captioning samples teach the understanding expert to read ViT patches, clean latents and lightly noised latents.
    """
    record, config, inputs, draws = given.record, given.config, given.inputs, given.draws
    if record.task != "text_to_image":
        return sft(given)
    if draws.random() >= config.understanding_share:
        recaptioned = config.recaption_share and draws.random() < config.recaption_share
        return (sft_recaption if recaptioned else sft)(given)
    texts = (record.prompt, *record.captions)
    answer = _text(texts[draws.integers(len(texts))], inputs, answer=True)
    return Sample(record.id, "understanding", (_picture_to_read(given), answer))


Method = Callable[[Given], Sample]

METHODS: Mapping[str, Method] = {
    "uno": uno,
    "uno_caption": uno_caption,
    "uno_visual": uno_visual,
    "sft": sft,
    "sft_recaption": sft_recaption,
    "reca": reca,
    "pretrain": pretrain,
}


def _generation(given: Given, *, caption: bool = False, metaqueries: bool = False) -> Sample:
    """Makes a sample of the sources, the prompt, and the noised target with its supervision."""
    record, inputs = given.record, given.inputs
    items: list[Item] = []
    for number in range(1, len(record.sources) + 1):
        items.append(CleanLatents(pixels=given.latents(number), droppable=True))
        items.append(VitImage(pixels=given.patches("vit", number), droppable=True))
    items.append(_text(record.prompt, inputs, droppable=True))
    target = NoisedTarget(
        pixels=given.latents(),
        caption=_caption(given) if caption else None,
        query_pixels=given.patches("metaqueries") if metaqueries else None,
    )
    without_caption = caption and target.caption is None
    if given.config.supervise == "hidden" and (target.caption is not None or target.query_pixels is not None):
        # A noised block sees what comes before it, so the one that is read comes before the prompt.
        items.insert(-1, replace(target, flow=False))
        target = replace(target, caption=None, query_pixels=None)
    return Sample(record.id, record.task, (*items, target), without_caption=without_caption)


def _caption(given: Given) -> tuple[int, ...] | None:
    """Picks one of the captions that differ from the prompt, or None if there is none."""
    captions = captions_of(given.record)
    if not captions:
        return None
    return tuple(given.inputs.tokenizer.encode(captions[given.draws.integers(len(captions))]))


def captions_of(record: Record) -> list[str]:
    """Returns the captions of a record that differ from its prompt."""
    return [caption for caption in record.captions if caption.strip() != record.prompt.strip()]


def _picture_to_read(given: Given) -> Item:
    """Makes the picture of an understanding sample of `pretrain`: ViT patches, or clean or lightly noised latents."""
    config, draws = given.config, given.draws
    if draws.random() >= config.latent_share:
        return _vit_image(given)
    time_scale = config.noised_time_scale if draws.random() < config.noised_share else 0.0
    return CleanLatents(pixels=given.latents(), time_scale=time_scale)


def _vit_image(given: Given) -> VitImage:
    return VitImage(pixels=given.patches("vit"))


def _question(record: Record, inputs: Inputs) -> Plan:
    """Makes the texts of an understanding record: the question, if any, and the answer."""
    answer = _text(record.answer, inputs, answer=True)
    return (_text(record.prompt, inputs), answer) if record.prompt else (answer,)


def _text(text: str, inputs: Inputs, *, droppable: bool = False, answer: bool = False) -> Text:
    return Text(ids=tuple(inputs.tokenizer.encode(text)), droppable=droppable, answer=answer)
