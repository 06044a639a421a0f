"""From plans to pictures: what guidance needs, laid out, and read into the contexts that the sampler goes on from."""

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

    What these begin with as the context does (the very same items) is not read again.
    """

    context: Plan
    without_text: Plan
    """Begins as the context does; what follows is a negative prompt."""
    without_image: Plan | None
    """None: the context itself."""
    height: int
    """In pixels."""
    width: int
    seed: int = 0
    """Of the noise, and of the autoencoder's sample of the context's images."""

    def needed_by(self, flow: FlowConfig) -> GuidedPlan:
        """The plan less the contexts that no step of `flow` compares with, so that they are not read."""
        return replace(
            self,
            without_text=self.without_text if flow.guided_by_text else (),
            without_image=self.without_image if flow.guided_by_images else None,
        )


def guided_plan(context: Plan, height: int, width: int, *, negative: tuple[int, ...] = (), seed: int = 0) -> GuidedPlan:
    """The plan of a picture after a context that ends in its prompt (convention 18).

    `negative` is a prompt that guidance leads away from: it takes the prompt's place in the text-free context.
    """
    without_text = without_last_text(context)
    if negative:
        without_text = (*without_text, Text(ids=negative))
    return GuidedPlan(context, without_text, texts_alone(context), height, width, seed)


class Comparison(NamedTuple):
    """Contexts that guidance compares with, one a row."""

    shared: Int[Any, " rows"] | None
    """So many tokens of the context are the first of this one, too; None: none, in any row."""
    rest: TokenBatch
    """What follows them: nothing but text."""
    target: TokenBatch


class PictureInputs(NamedTuple):
    """Pictures to sample, one a row; padding where there are more rows."""

    context: PixelBatch | Batch
    """The only one that may hold latents: pixels until `encode_batch` has run."""
    target: TokenBatch
    without_text: Comparison
    without_image: Comparison | None
    """None: that is the context itself, in all rows."""


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

    def batches(contexts: Sequence[Plan], read: Sequence[int]) -> tuple[PixelBatch, TokenBatch]:
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
    cache: KVCache | None = None,
) -> Branches:
    """Reads the contexts of some pictures, whose images' latents are `latents`. Pure, to be jitted.

    `cache` is what has been read of the contexts before (`picture_inputs(read=...)`).

    One forward pass over the contexts; and one over what the text-free contexts hold besides a beginning of these, and
    one over that of the contexts of texts alone, each only where there is something to read.
    """
    context = read_context(params, inputs.context, latents, model, cache)

    def compared(other: Comparison) -> Branch:
        begun = None if other.shared is None else first_tokens(context, other.shared)
        no_latents = jnp.zeros((*other.rest.latent_index.shape, model.latent_size))
        return Branch(read_context(params, other.rest, no_latents, model, begun), other.target)

    without_image = None if inputs.without_image is None else compared(inputs.without_image)
    return Branches(Branch(context, inputs.target), compared(inputs.without_text), without_image)
