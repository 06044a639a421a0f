"""Python API: loads a model once, then generates, edits and answers in batches (see `docs/sampling.md`).

generator = load_generator("runs/openmoji_uno")
[heart] = generator.generate_images(["a red heart"])
[edit] = generator.edit_images([heart.image], ["make it blue"])
[answer] = generator.answer([edit.image], ["What colour is it?"])
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from jax.typing import DTypeLike
from PIL import Image

from uno_jax.batch import Batch
from uno_jax.data.plans import Plan, Text
from uno_jax.data.sampling_rows import latent_bucket
from uno_jax.inference.contexts import (
    ContextPart,
    Picture,
    context_plan,
    encode_texts,
    last_picture_size,
    read_picture,
)
from uno_jax.inference.picture_inputs import GuidedPlan, PictureInputs, guided_plan, picture_inputs, read_branches
from uno_jax.inference.picture_settings import PictureSettings, picture_size
from uno_jax.inference.reader import SEED, Reader, ReadPlans, load_reader
from uno_jax.inference.thinking import ThinkingConfig, split_thought
from uno_jax.models.config import ModelConfig
from uno_jax.models.decoder import KVCache
from uno_jax.models.quantised import Weights
from uno_jax.objectives.draws import draw
from uno_jax.parallel.axes import on_mesh
from uno_jax.parallel.mesh import MeshConfig, put_rows
from uno_jax.process.errors import UserError
from uno_jax.sampling.decode import decode_pictures
from uno_jax.sampling.flow import Branches, sample_latents
from uno_jax.sampling.text import TextConfig

T = TypeVar("T")

BATCH = 4


class Request(NamedTuple):
    """Request for a picture."""

    context: tuple[ContextPart, ...]
    """Texts and pictures in any order. Text guidance applies to the last text."""
    settings: PictureSettings


class GeneratedImage(NamedTuple):
    """A generated picture."""

    image: Image.Image
    thought: str = ""
    """Reasoning before the picture, with `PictureSettings.think`."""


class Answer(NamedTuple):
    """A generated answer."""

    text: str
    thought: str = ""
    """Reasoning before the answer, with `think`."""


class Prepared(NamedTuple):
    """Inputs of one batch of pictures, before the contexts are read."""

    plans: list[GuidedPlan]
    """One plan per request, with the thought as the end of its context."""
    inputs: PictureInputs
    """The unread parts of the plans, one row per request, plus padding rows."""
    cache: KVCache | None
    """Key-value cache of the context tokens that were read before; None if there are none."""
    thoughts: list[str]
    """Reasoning of each request; empty without `think`."""


@dataclass(frozen=True)
class Generator:
    """Generates pictures and text with a loaded model. Programs are compiled for new shapes and then reused."""

    reader: Reader
    thinking: ThinkingConfig = field(default_factory=ThinkingConfig)

    def generate_images(
        self,
        prompts: Sequence[str],
        settings: PictureSettings | Sequence[PictureSettings] | None = None,
        *,
        seeds: Sequence[int] | None = None,
        batch_size: int = BATCH,
    ) -> list[GeneratedImage]:
        """Generates a picture for each prompt.

        Args:
          prompts: descriptions of the pictures.
          settings: settings for all pictures or one per picture; None uses the defaults.
          seeds: one seed per prompt, which overrides the settings.
          batch_size: maximum pictures per batch. It changes pictures only by rounding.

        Raises:
          ValueError: the model does not support a size, argument lists differ in length, or an argument is a str
            instead of a list.
        """
        return self._generate_list([(prompt,) for prompt in _listed(prompts, "prompts")], settings, seeds, batch_size)

    def edit_images(
        self,
        images: Sequence[Picture | str | Sequence[Picture | str]],
        instructions: Sequence[str],
        settings: PictureSettings | Sequence[PictureSettings] | None = None,
        *,
        seeds: Sequence[int] | None = None,
        batch_size: int = BATCH,
    ) -> list[GeneratedImage]:
        """Edits one or several pictures by each instruction.

        Args:
          images: one picture or a sequence of pictures per instruction. A picture is a PIL image, a uint8 array
            `[height, width, 3]`, or a file name.
          instructions: descriptions of the changes.
          settings: as for `generate_images`.
          seeds: as for `generate_images`.
          batch_size: as for `generate_images`.

        Raises:
          ValueError: as for `generate_images`, an edit has no pictures, or a picture cannot be read.
        """
        contexts = []
        for number, (given, instruction) in enumerate(_paired(images, instructions, "images", "instructions")):
            pictures = tuple(read_picture(picture, f"picture of edit {number}") for picture in _several(given))
            if not pictures:
                raise ValueError(f"edit {number} has no pictures: give at least one, or use generate_images")
            contexts.append((*pictures, instruction))
        return self._generate_list(contexts, settings, seeds, batch_size)

    def answer(
        self,
        images: Sequence[Picture | str | Sequence[ContextPart]],
        questions: Sequence[str],
        text: TextConfig | None = None,
        *,
        think: bool = False,
        seeds: Sequence[int] | None = None,
        stop: Sequence[str] = (),
        batch_size: int = BATCH,
    ) -> list[Answer]:
        """Answers each question about a picture, or about texts and pictures in any order.

        Args:
          images: one picture (or its file name) per question, or a sequence of texts and pictures. In a sequence, a
            str is a text and a file is a `pathlib.Path`.
          questions: one per answer; an empty question gives a caption.
          text: how answers are sampled; None uses the defaults.
          think: whether the model reasons first.
          seeds: one seed per answer, for a temperature above 0; None uses 0.
          stop: tokens that end an answer in addition to the model's end token.
          batch_size: maximum answers per batch.

        Raises:
          ValueError: a picture cannot be read, a text in `stop` is not a single token, a seed is out of range, argument
            lists differ in length, or an argument is a str instead of a list.
        """
        contexts = []
        for given, question in _paired(images, questions, "images", "questions"):
            context: Any = given
            parts = tuple(context) if isinstance(context, (list, tuple)) else (read_picture(context),)
            contexts.append((*parts, question) if question else parts)
        chosen = [0] * len(contexts) if seeds is None else list(seeds)
        pairs = list(_paired(contexts, chosen, "questions", "seeds"))
        answers: list[Answer] = []
        for chunk in _chunks(pairs, batch_size):
            some, own_seeds = zip(*chunk, strict=True)
            # Contexts of answers have no latents, so these seeds have no effect.
            plans = [self.answering_plan(context, think=think, text=text) for context in some]
            read = self.reader.read(plans, [0] * len(some))
            [*_, written] = self.reader.write(read, text or TextConfig(), own_seeds, stop=self.stop_tokens(stop))
            for ids in written:
                thought, answer = split_thought(self.reader.model.tokenizer.decode(ids))
                answers.append(Answer(answer, thought))
        return answers

    def generate(self, requests: Sequence[Request], batch_size: int = BATCH) -> Iterator[tuple[int, GeneratedImage]]:
        """Generates pictures in batches of compatible requests, and yields each with its index in `requests`.

        Raises:
          ValueError: the model does not support a size, a picture cannot be read, or `batch_size` is less than 1.
        """
        for batch in self.batches(requests, batch_size):
            yield from zip(batch, self._generate_batch([requests[i] for i in batch]), strict=True)

    def batches(self, requests: Sequence[Request], batch_size: int = BATCH) -> list[list[int]]:
        """Groups the indices of requests into batches.

        Requests of a batch have equal settings except for negative prompt, seed and size. Their sizes share a bucket.
        Contexts with pictures are separate from those without, so no row costs more than it would alone.
        """
        groups: dict[Any, list[int]] = {}
        for number, request in enumerate(requests):
            groups.setdefault(self.kind(request), []).append(number)
        return sorted(chunk for group in groups.values() for chunk in _chunks(group, batch_size))

    def kind(self, request: Request) -> Any:
        """Returns what the requests of a batch have in common, as a key.

        Raises:
          ValueError: as for `size_of`.
        """
        height, width = self.size_of(request)
        tokens = height * width // self.reader.model.config.pixels_per_token**2
        plain = dataclasses.replace(request.settings, seed=0, negative="", size="", aspect="")
        return plain, latent_bucket(tokens), any(not isinstance(part, str) for part in request.context)

    def size_of(self, request: Request) -> tuple[int, int]:
        """Returns height and width in pixels of the requested picture.

        Raises:
          ValueError: the model does not support the size, or a picture of the context cannot be read.
        """
        model, last = self.reader.model, None
        pictures = [part for part in request.context if not isinstance(part, str)]
        if pictures:
            pixels = read_picture(pictures[-1], "the last picture of the context")
            width, height = model.vae_transform.size(pixels.shape[1], pixels.shape[0])
            last = (height, width)
        return picture_size(request.settings, model.config, model.vae_transform, last)

    def answering_plan(
        self, context: Sequence[ContextPart], *, think: bool = False, text: TextConfig | None = None
    ) -> Plan:
        """Returns the plan of the context of an answer that is sampled by `text` (None: the defaults).

        Raises:
          ValueError: a picture cannot be read, or the context and the answer may be longer than the context length of
            the model.
        """
        before = (self.thinking.answering_prompt,) if think else ()
        written = (text or TextConfig()).max_length
        return context_plan((*before, *context), self.reader.model, latents=False, written=written)

    def check_texts(self, request: Request) -> None:
        """Checks the texts of a request before anything is computed.

        Raises:
          UserError: a text is not valid Unicode, or the context is longer than the context length of the model.
        """
        settings, model = request.settings, self.reader.model
        before, written = self._thinking_about(settings)
        encode_texts((*before, *request.context), model, written=written)
        encode_texts((settings.negative,), model)

    def _thinking_about(self, settings: PictureSettings) -> tuple[tuple[str, ...], int]:
        """Returns the texts before the context of a picture, and the maximum number of tokens of the thought."""
        return ((self.thinking.drawing_prompt,), self.thinking.text.max_length) if settings.think else ((), 0)

    def stop_tokens(self, stop: Sequence[str]) -> tuple[int, ...]:
        """Returns the ids of stop tokens.

        Raises:
          UserError: a text is not exactly one token.
        """
        found = []
        for text in _listed(stop, "stop"):
            token = self.reader.model.tokenizer.one_id(text)
            if token is None:
                raise UserError(f"stop {text!r} is not one token of this model: expected exactly one")
            found.append(token)
        return tuple(found)

    def _generate_list(
        self,
        contexts: Sequence[tuple[ContextPart, ...]],
        settings: PictureSettings | Sequence[PictureSettings] | None,
        seeds: Sequence[int] | None,
        batch_size: int,
    ) -> list[GeneratedImage]:
        settings = PictureSettings() if settings is None else settings
        each = [settings] * len(contexts) if isinstance(settings, PictureSettings) else list(settings)
        if seeds is not None:
            each = [dataclasses.replace(s, seed=seed) for s, seed in _paired(each, seeds, "prompts", "seeds")]
        requests = [Request(context, own) for context, own in _paired(contexts, each, "prompts", "settings")]
        generated = dict(self.generate(requests, batch_size))
        return [generated[i] for i in range(len(requests))]

    def _generate_batch(self, requests: Sequence[Request]) -> list[GeneratedImage]:
        """Generates the pictures of one batch."""
        reader, model = self.reader, self.reader.model
        plans, inputs, cache, thoughts = self.prepare(requests)
        inputs = put_rows(inputs._replace(context=reader.encoded(inputs.context)), reader.mesh)
        flow = requests[0].settings.flow(model.time_shift)
        with on_mesh(reader.mesh):
            branches = _read_branches(model.params, inputs, cache, model=model.config)
            latents = np.asarray(sample_latents(model.params, branches, model.config, flow, SEED))
        if not np.isfinite(latents[: len(plans)]).all():
            raise FloatingPointError(
                "the picture has values that are not finite. Lower text_scale and image_scale, or look for such values "
                "in the model with `convert inspect`"
            )
        unit = model.config.pixels_per_token
        grids = [(plan.height // unit, plan.width // unit) for plan in plans]
        tokens = [latents[i, : rows * columns] for i, (rows, columns) in enumerate(grids)]
        pictures = decode_pictures(model.autoencoder, model.autoencoder_params, tokens, grids, model.config)
        return [GeneratedImage(Image.fromarray(p), thought) for p, thought in zip(pictures, thoughts, strict=True)]

    def prepare(self, requests: Sequence[Request]) -> Prepared:
        """Writes the thoughts of one batch if its settings ask for them, and lays out the unread parts of its contexts.

        Raises:
          ValueError: the model does not support a size, or a picture cannot be read.
        """
        reader, settings = self.reader, requests[0].settings
        plans, thoughts, read = [self._guided_plan(request) for request in requests], [""] * len(requests), None
        if settings.think:
            read, plans, thoughts = self._think(plans)
        flow = settings.flow(reader.model.time_shift)
        plans = [plan.needed_by(flow) for plan in plans]
        rows = reader.row_count(len(plans))
        tokens = read.tokens if read else None
        inputs = picture_inputs(plans, reader.layout, reader.model.tokenizer, rows, read=tokens)
        return Prepared(plans, inputs, read.cache if read else None, thoughts)

    def _guided_plan(self, request: Request) -> GuidedPlan:
        model, settings = self.reader.model, request.settings
        before, written = self._thinking_about(settings)
        context = context_plan((*before, *request.context), model, latents=True, written=written)
        height, width = picture_size(settings, model.config, model.vae_transform, last_picture_size(context))
        [negative] = encode_texts((settings.negative,), model)
        return guided_plan(context, height, width, negative=negative, seed=settings.seed)

    def _think(self, plans: Sequence[GuidedPlan]) -> tuple[ReadPlans, list[GuidedPlan], list[str]]:
        """Writes a thought after each context, and appends it to the context.

        Guidance compares with contexts without the thought, as in BAGEL's public implementation: without the prompt,
        and with texts only. Without pictures, the latter is the context before the thought.
        """
        seeds = [plan.seed for plan in plans]
        read = self.reader.read([plan.context for plan in plans], seeds)
        [*_, written] = self.reader.write(read, self.thinking.text, seeds)
        thinking = [
            dataclasses.replace(
                plan,
                context=(*plan.context, Text(ids=ids)),
                without_image=plan.context if plan.without_image is None else plan.without_image,
            )
            for plan, ids in zip(plans, written, strict=True)
        ]
        return read, thinking, [self.reader.model.tokenizer.decode(ids) for ids in written]


def load_generator(
    path: str | Path,
    *,
    ema: bool = False,
    dtype: DTypeLike | None = None,
    mesh: MeshConfig | None = None,
    weights: Weights = "plain",
    thinking: ThinkingConfig | None = None,
) -> Generator:
    """Loads a generator from a checkpoint of a run, or from a directory in the public layout.

    Args:
      path: as for `load_reader`.
      ema: as for `load_reader`.
      dtype: as for `load_reader`.
      mesh: as for `load_reader`.
      weights: as for `load_reader`.
      thinking: system prompts, and how thoughts are sampled; None uses the defaults.

    Raises:
      CheckpointError, CheckpointMismatch, ConfigError: as for `load_reader`.
    """
    reader = load_reader(path, ema=ema, dtype=dtype, mesh=mesh, weights=weights)
    return Generator(reader, thinking or ThinkingConfig())


def _several(pictures: Picture | str | Sequence[Picture | str]) -> Sequence[Picture | str]:
    return pictures if isinstance(pictures, (list, tuple)) else (pictures,)


def _listed(values: Sequence[T], name: str) -> Sequence[T]:
    if isinstance(values, str):  # a str is a sequence of texts, too
        raise ValueError(f"{name} is {values!r}: expected a list, such as [{values!r}]")
    return values


def _chunks(values: Sequence[T], batch_size: int) -> list[list[T]]:
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}: expected at least 1")
    return [list(values[i : i + batch_size]) for i in range(0, len(values), batch_size)]


def _paired(first: Sequence[T], second: Sequence[Any], name: str, other: str) -> Iterator[tuple[T, Any]]:
    if len(_listed(first, name)) != len(_listed(second, other)):
        raise ValueError(f"{len(first)} {name} and {len(second)} {other}: expected equal numbers")
    return zip(first, second, strict=True)


@functools.partial(jax.jit, static_argnames="model")
def _read_branches(params: Any, inputs: PictureInputs, cache: KVCache | None, *, model: ModelConfig) -> Branches:
    assert isinstance(inputs.context, Batch), "the context has not been encoded"
    latents = draw(inputs.context, SEED, 1.0, model.autoencoder).latents
    return read_branches(params, inputs, latents, model, cache)
