"""Captions that the understanding expert writes of latents, greedily."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from uno_jax.batch import Batch
from uno_jax.models.config import ModelConfig
from uno_jax.models.unified import UnifiedModel

Params = Any


def decode_greedily(
    logits_of: Callable[[Array], Array], rows: int, length: int, start: int, end: int
) -> Int[Array, "rows length"]:
    """Token ids int32 that begin with `start`, each next one the likeliest; from the first `end` on, all are `end`.

    `logits_of` takes ids `[rows, length]` and gives logits `[rows, length, vocab]`, those at i of the token at i + 1
    and from ids up to i alone. `length` counts the start token, so it leaves room for `length - 1` new tokens
    (convention of the public implementation). Ends early when every row has ended.
    """

    def goes_on(state: tuple[Array, Array]) -> Array:
        written, ids = state
        return (written < length) & ~jnp.all(ids[:, written - 1] == end)

    def write(state: tuple[Array, Array]) -> tuple[Array, Array]:
        written, ids = state
        logits = jax.lax.dynamic_index_in_dim(logits_of(ids), written - 1, axis=1, keepdims=False)
        likeliest = jnp.argmax(logits, axis=-1).astype(jnp.int32)
        ended = ids[:, written - 1] == end
        return written + 1, ids.at[:, written].set(jnp.where(ended, end, likeliest))

    ids = jnp.full((rows, length), end, jnp.int32).at[:, 0].set(start)
    return jax.lax.while_loop(goes_on, write, (jnp.int32(1), ids))[1]


def write_captions(
    params: Params,
    batch: Batch,
    latents: Float[Array, "batch latents features"],
    model: ModelConfig,
    start: int,
    end: int,
) -> Int[Array, "batch captions"]:
    """A caption of each row's latents, from the start token on; a pure function, to be jitted.

    Each row of the batch holds one noised target (no context, no metaqueries) whose caption fills the caption region;
    the ids in it are not read. The latents are read as they are, at time 0.
    """
    unified = UnifiedModel(model)
    times = jnp.zeros(latents.shape[:2])

    def logits_of(ids: Array) -> Float[Array, "batch captions vocab"]:
        predictions: Any = unified.apply({"params": params}, batch._replace(caption_ids=ids), latents, times)
        return predictions.caption_logits

    rows, length = batch.caption_ids.shape
    return decode_greedily(logits_of, rows, length, start, end)


def written_ids(ids: Sequence[int], end: int) -> list[int]:
    """What stands between the start token and the first end token."""
    written = [int(i) for i in ids][1:]
    return written[: written.index(end)] if end in written else written
