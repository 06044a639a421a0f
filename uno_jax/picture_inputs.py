"""From plans to pictures: what guidance needs, laid out, and read into the contexts that the sampler goes on from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from uno_jax.batch import Batch
from uno_jax.data.contexts import (
    context_batch,
    part,
    target_batch,
    texts_alone,
    token_count,
    without_last_text,
)
from uno_jax.data.layout import Layout, Regions, lay_out
from uno_jax.data.plans import NoisedTarget, Plan, Text
from uno_jax.data.tokenizer import Tokenizer
from uno_jax.models.config import ModelConfig
from uno_jax.models.decoder import Past
from uno_jax.sampling.context import Params, first_tokens, read_context
from uno_jax.sampling.flow import Branch, Branches


@dataclass(frozen=True)
class GuidedPlan:
    """A picture to sample: its context, and the contexts that guidance compares with."""

    context: Plan
    without_text: Plan
    """Begins as the context does; what follows is a negative prompt."""
    without_image: Plan | None
    """None: the context holds no image."""
    height: int
    """In pixels."""
    width: int
    seed: int = 0
    """Of the noise, and of the autoencoder's sample of the context's images."""


def guided_plan(context: Plan, height: int, width: int, *, negative: tuple[int, ...] = (), seed: int = 0) -> GuidedPlan:
    """The plan of a picture after a context that ends in its prompt (convention 18).

    `negative` is a prompt that guidance leads away from: it takes the prompt's place in the text-free context.
    """
    without_text = without_last_text(context)
    if negative:
        without_text = (*without_text, Text(ids=negative))
    return GuidedPlan(context, without_text, texts_alone(context), height, width, seed)


class PictureInputs(NamedTuple):
    """Pictures to sample, one a row; padding where there are more rows."""

    context: Batch
    """The only one that may hold latents: pixels until `encode_batch` has run."""
    target: Batch
    shared: Int[Any, " rows"]
    """So many tokens of the context are those of the text-free one, too."""
    negative: Batch | None
    """What follows them there; None: nothing, in all rows."""
    target_without_text: Batch
    without_image: Batch | None
    """None: no context holds an image."""
    target_without_image: Batch | None


def picture_inputs(
    plans: Sequence[GuidedPlan],
    layout: Layout,
    tokenizer: Tokenizer,
    rows: int | None = None,
    *,
    read: Sequence[int] | None = None,
) -> PictureInputs:
    """The batches of some pictures, which may differ in size and in kind of context.

    `read` says how many tokens of each context have been read before, and are left out here.

    Raises:
      ValueError: a size that is not made of whole latent tokens, or is larger than the model's position table.
    """

    def split(plan: GuidedPlan, context: Plan) -> tuple[Regions, Regions]:
        blank = NoisedTarget(pixels=np.zeros((plan.height, plan.width, 3), np.uint8))
        regions = lay_out((*context, blank), layout, tokenizer, occurrence=plan.seed)
        start = token_count(context, layout)
        return part(regions, 0, start), part(regions, start)

    def batches(contexts: Sequence[Plan], read: Sequence[int]) -> tuple[Batch, Batch]:
        parts = [split(plan, context) for plan, context in zip(plans, contexts, strict=True)]
        first, second = zip(*parts, strict=True)
        unread = [part(regions, start) for regions, start in zip(first, read, strict=True)]
        return context_batch(unread, layout, rows), target_batch(second, layout, rows)

    nothing = [0] * len(plans)
    context, target = batches([plan.context for plan in plans], nothing if read is None else read)
    text_free = [split(plan, plan.without_text) for plan in plans]
    shared = [token_count(_common(plan.context, plan.without_text), layout) for plan in plans]
    negative = [part(regions, start) for (regions, _), start in zip(text_free, shared, strict=True)]
    without_image: tuple[Batch | None, Batch | None] = (None, None)
    if any(plan.without_image is not None for plan in plans):
        texts = [plan.context if plan.without_image is None else plan.without_image for plan in plans]
        without_image = batches(texts, nothing)
    return PictureInputs(
        context=context,
        target=target,
        shared=np.array(shared + [0] * (len(target.text_ids) - len(plans)), np.int32),
        negative=context_batch(negative, layout, rows) if any(len(x["text"]) for x in negative) else None,
        target_without_text=target_batch([block for _, block in text_free], layout, rows),
        without_image=without_image[0],
        target_without_image=without_image[1],
    )


def _common(first: Plan, second: Plan) -> Plan:
    """The items that both begin with, the very same ones."""
    count = 0
    while count < min(len(first), len(second)) and first[count] is second[count]:
        count += 1
    return first[:count]


def read_branches(
    params: Params,
    inputs: PictureInputs,
    latents: Float[Array, "rows latents latent_size"],
    model: ModelConfig,
    past: Past | None = None,
) -> Branches:
    """Reads the contexts of some pictures, whose images' latents are `latents`. Pure, to be jitted.

    `past` is what has been read of the contexts before (`picture_inputs(read=...)`).

    One forward pass over the contexts, whose beginning is the text-free context as well; one over the negative
    prompts, which go on from there; and one over the contexts of texts alone, each only where there is something to
    read.
    """

    def read_texts(batch: Batch, past: Past | None = None) -> Past:
        return read_context(params, batch, jnp.zeros((*batch.latent_index.shape, model.latent_size)), model, past)

    context = read_context(params, inputs.context, latents, model, past)
    without_text = first_tokens(context, inputs.shared)
    if inputs.negative is not None:
        without_text = read_texts(inputs.negative, without_text)
    without_image = None
    if inputs.without_image is not None and inputs.target_without_image is not None:
        without_image = Branch(read_texts(inputs.without_image), inputs.target_without_image)
    return Branches(Branch(context, inputs.target), Branch(without_text, inputs.target_without_text), without_image)
