"""Lays out plans of pictures for guidance, and reads their contexts into caches for the sampler."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from uno_jax.batch import Batch, Layout, PixelBatch, TokenBatch
from uno_jax.data.layout import Regions, lay_out
from uno_jax.data.plans import NoisedTarget, Plan, Text
from uno_jax.data.sampling_rows import (
    context_batch,
    part,
    target_batch,
    texts_alone,
    token_count,
    without_last_text,
)
from uno_jax.data.tokenizer import Tokenizer
from uno_jax.models.config import ModelConfig
from uno_jax.models.decoder import KVCache
from uno_jax.sampling.cache import Params, first_tokens, read_context
from uno_jax.sampling.flow import Branch, Branches
from uno_jax.sampling.schedule import FlowConfig


@dataclass(frozen=True)
class GuidedPlan:
    """A picture to sample: its context, and the contexts that guidance compares with.

    Leading items that these share with the context (as identical objects) are not read again.
    """

    context: Plan
    without_text: Plan
    """The context without its prompt, optionally followed by a negative prompt."""
    without_image: Plan | None
    """The texts of the context; None for the context itself."""
    height: int
    """Height in pixels."""
    width: int
    """Width in pixels."""
    seed: int = 0
    """Seed of the noise, and of the autoencoder's samples for pictures of the context."""

    def needed_by(self, flow: FlowConfig) -> GuidedPlan:
        """Removes contexts that no step of `flow` compares with, so that they are not read."""
        return replace(
            self,
            without_text=self.without_text if flow.guided_by_text else (),
            without_image=self.without_image if flow.guided_by_images else None,
        )


def guided_plan(context: Plan, height: int, width: int, *, negative: tuple[int, ...] = (), seed: int = 0) -> GuidedPlan:
    """Returns the plan of a picture whose context ends in its prompt, as in BAGEL's public implementation.

    Args:
      context: the items before the picture.
      height: height in pixels.
      width: width in pixels.
      negative: token ids of a negative prompt, which replaces the prompt in `without_text`.
      seed: seed of the noise.
    """
    without_text = without_last_text(context)
    if negative:
        without_text = (*without_text, Text(ids=negative))
    return GuidedPlan(context, without_text, texts_alone(context), height, width, seed)


class Comparison(NamedTuple):
    """Contexts that guidance compares with, one per row."""

    shared: Int[Any, " rows"] | None
    """Number of leading tokens shared with the context; None if there are none in any row."""
    rest: TokenBatch
    """The tokens after the shared ones; text only."""
    target: TokenBatch


class PictureInputs(NamedTuple):
    """Pictures to sample, one per row; the remaining rows are padding."""

    context: PixelBatch | Batch
    """Contexts; the only batch that may hold latents. They are pixels until `encode_batch`."""
    target: TokenBatch
    without_text: Comparison
    without_image: Comparison | None
    """None if it is the context itself in all rows."""


def picture_inputs(
    plans: Sequence[GuidedPlan],
    layout: Layout,
    tokenizer: Tokenizer,
    rows: int | None = None,
    *,
    read: Sequence[int] | None = None,
) -> PictureInputs:
    """Builds the batches of pictures, which may differ in size and in the kind of context.

    Args:
      plans: one plan per picture.
      layout: sizes of the token layout.
      tokenizer: tokenizer of the model.
      rows: rows of the batches; None for one per picture.
      read: number of tokens of each context that have been read before; these are skipped.

    Raises:
      ValueError: a side is not a multiple of the latent token size, or exceeds the position table of the model.
    """

    def split(plan: GuidedPlan, context: Plan) -> tuple[Regions, Regions]:
        blank = NoisedTarget(pixels=np.zeros((plan.height, plan.width, 3), np.uint8))
        regions = lay_out((*context, blank), layout, tokenizer, occurrence=plan.seed)
        start = token_count(context, layout)
        return part(regions, 0, start), part(regions, start)

    def batches(contexts: Sequence[Plan], read: Sequence[int]) -> tuple[PixelBatch | Batch, TokenBatch]:
        parts = [split(plan, context) for plan, context in zip(plans, contexts, strict=True)]
        first, second = zip(*parts, strict=True)
        unread = [part(regions, start) for regions, start in zip(first, read, strict=True)]
        return context_batch(unread, layout, rows), target_batch(second, layout, rows)

    def comparison(contexts: Sequence[Plan]) -> Comparison:
        pairs = zip(plans, contexts, strict=True)
        shared = [token_count(_common(plan.context, context), layout) for plan, context in pairs]
        rest, target = batches(contexts, shared)
        padding = [0] * (len(target.text_ids) - len(plans))
        return Comparison(np.array(shared + padding, np.int32) if any(shared) else None, rest, target)

    context, target = batches([plan.context for plan in plans], [0] * len(plans) if read is None else read)
    without_image = None
    if any(plan.without_image is not None for plan in plans):
        texts = [plan.context if plan.without_image is None else plan.without_image for plan in plans]
        without_image = comparison(texts)
    return PictureInputs(context, target, comparison([plan.without_text for plan in plans]), without_image)


def _common(first: Plan, second: Plan) -> Plan:
    """Returns the leading items that are identical objects in both plans."""
    count = 0
    while count < min(len(first), len(second)) and first[count] is second[count]:
        count += 1
    return first[:count]


def read_branches(
    params: Params,
    inputs: PictureInputs,
    latents: Float[Array, "rows latents latent_size"],
    model: ModelConfig,
    cache: KVCache | None = None,
) -> Branches:
    """Reads the contexts of pictures into caches. Pure, so it can be jitted.

    It runs one forward pass over the contexts, and one each over the unshared tokens of `without_text` and
    `without_image`, if there are any.

    Args:
      params: parameters of the model.
      inputs: the batches; `inputs.context` is encoded.
      latents: latents of the pictures in the contexts.
      model: sizes of the model.
      cache: cache of the tokens that have been read before (`picture_inputs(read=...)`).
    """
    context = read_context(params, inputs.context, latents, model, cache)

    def compared(other: Comparison) -> Branch:
        begun = None if other.shared is None else first_tokens(context, other.shared)
        no_latents = jnp.zeros((*other.rest.latent_index.shape, model.latent_size))
        return Branch(read_context(params, other.rest, no_latents, model, begun), other.target)

    without_image = None if inputs.without_image is None else compared(inputs.without_image)
    return Branches(Branch(context, inputs.target), compared(inputs.without_text), without_image)
