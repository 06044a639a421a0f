"""Text that the understanding expert writes after a context: captions, answers, thoughts."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from uno_jax.attention.metadata import TokenMetadata
from uno_jax.config import ConfigError
from uno_jax.models.config import ModelConfig
from uno_jax.models.decoder import KVCache
from uno_jax.models.unified import UnifiedModel
from uno_jax.sampling.cache import fitted, sown_keys_values

Params = Any


@dataclass(frozen=True)
class TextConfig:
    """How text is written."""

    max_length: int = 512
    """Counts the start token, so it leaves room for one new token less (convention of the public implementation)."""
    temperature: float = 0.0
    """Of the softmax that tokens are drawn from; 0: always the likeliest."""
    top_p: float = 1.0
    """Tokens are drawn from the likeliest that together reach this probability."""

    def __post_init__(self) -> None:
        if self.max_length < 2:
            raise ConfigError(f"max_length is {self.max_length}: expected 2 or more, for it counts the start token")
        if not 0 <= self.temperature < math.inf:
            raise ConfigError(f"temperature is {self.temperature}: expected 0 or more, and finite")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p is {self.top_p}: expected more than 0, at most 1")


class Writing(NamedTuple):
    """Texts in the making, one a row. Each row's stays as it is once it has ended."""

    ids: Int[Array, "batch length"]
    """From the start token on. What is not written yet, or stands after a stop token, repeats the last token."""
    written: Int[Array, ""]
    """How many of `ids` are there."""
    ended: Bool[Array, " batch"]
    cache: KVCache
    """The context, then a slot for each token of `ids` but the last."""
    first: TokenMetadata
    """Of the start token, `[batch, 1]`."""
    seeds: Int[Array, " batch"]


def begin_text(
    cache: KVCache, first: TokenMetadata, start: int, length: int, seeds: Int[Any, " batch"] | None = None
) -> Writing:
    """Texts of at most `length` tokens, of which only the start token is there. Pure, to be jitted.

    Args:
      cache: what each row may have read.
      first: metadata `[batch, 1]` of the start token. Its role says what the text is: context that goes on, or the
        caption of a noised block, which sees that block alone. Rows whose first token is of sample 0 have ended.
      start: id of the start token.
      length: with the start token.
      seeds: of each row, where tokens are drawn; 0 by default.
    """
    rows, context = cache.metadata.sample.shape
    return Writing(
        ids=jnp.full((rows, length), start, jnp.int32),
        written=jnp.int32(1),
        ended=first.sample[:, 0] == 0,
        cache=fitted(cache, context + length - 1),
        first=TokenMetadata(*(jnp.asarray(x) for x in first)),
        seeds=jnp.zeros(rows, jnp.int32) if seeds is None else jnp.asarray(seeds, jnp.int32),
    )


def continue_text(
    params: Params,
    writing: Writing,
    until: int,
    stop: Sequence[int],
    model: ModelConfig,
    config: TextConfig,
    seed: int = 0,
) -> Writing:
    """Goes on until `until` tokens are there, or every row has ended; token by token, each read once.

    Jitted: one program for each set of shapes, whatever the numbers. Calling it again with a larger `until` gives what
    one call would have given, which is how text is streamed.

    A drawn token depends on `seed`, its row's seed and its place in the sample, and on no other row.
    """
    continued: Writing = _continue_text(
        params,
        writing,
        jnp.int32(min(until, writing.ids.shape[1])),
        jnp.asarray(stop, jnp.int32),
        np.float32(config.temperature),
        np.float32(config.top_p),
        jnp.int32(seed),
        model=model,
        greedy=config.temperature == 0,
    )
    return continued


def write_text(
    params: Params,
    cache: KVCache,
    first: TokenMetadata,
    start: int,
    stop: Sequence[int],
    model: ModelConfig,
    config: TextConfig,
    seeds: Int[Any, " batch"] | None = None,
) -> Int[Array, "batch length"]:
    """Whole texts, from the start token on; see `begin_text` and `continue_text`. `written_ids` reads them."""
    writing = begin_text(cache, first, start, config.max_length, seeds)
    return continue_text(params, writing, config.max_length, stop, model, config).ids


def written_ids(ids: Sequence[int], stop: Sequence[int]) -> list[int]:
    """What stands between the start token and the first stop token."""
    written = [int(i) for i in ids][1:]
    return written[: next((i for i, token in enumerate(written) if token in stop), len(written))]


def token_logits(
    params: Params, ids: Int[Array, "batch tokens"], metadata: TokenMetadata, cache: KVCache, model: ModelConfig
) -> tuple[Float[Array, "batch tokens vocab"], tuple[Array, Array]]:
    """Logits of what follows each of some text tokens, and their keys and values; one forward pass."""
    logits, sown = UnifiedModel(model).apply(
        {"params": params}, ids, metadata, cache, method="read_text", mutable=["cache"]
    )
    return logits, sown_keys_values(sown)


@functools.partial(jax.jit, static_argnames=("model", "greedy"))
def _continue_text(
    params: Params,
    writing: Writing,
    until: Array,
    stop: Array,
    temperature: Array,
    top_p: Array,
    seed: Array,
    *,
    model: ModelConfig,
    greedy: bool,
) -> Writing:
    context = writing.cache.metadata.sample.shape[1] - (writing.ids.shape[1] - 1)

    def goes_on(writing: Writing) -> Array:
        return (writing.written < until) & ~jnp.all(writing.ended)

    def write(writing: Writing) -> Writing:
        place = writing.written - 1
        last = jax.lax.dynamic_index_in_dim(writing.ids, place, axis=1)
        metadata = moved(writing.first, place)
        logits, keys_values = token_logits(params, last, metadata, writing.cache, model)
        if greedy:
            chosen = jnp.argmax(logits[:, 0], axis=-1)
        else:
            keys = _token_keys(seed, writing.seeds, metadata.order[:, 0])
            chosen = jax.vmap(draw_token, in_axes=(0, 0, None, None))(keys, logits[:, 0], temperature, top_p)
        following = jnp.where(writing.ended, last[:, 0], chosen.astype(jnp.int32))
        return writing._replace(
            ids=jnp.where(jnp.arange(writing.ids.shape[1]) > place, following[:, None], writing.ids),
            written=writing.written + 1,
            ended=writing.ended | jnp.isin(following, stop),
            cache=with_token(writing.cache, context + place, keys_values, metadata),
        )

    return jax.lax.while_loop(goes_on, write, writing)


def moved(first: TokenMetadata, by: Array) -> TokenMetadata:
    """Of the token that comes so many after the first."""
    return first._replace(order=first.order + by, last_visible=first.last_visible + by, position=first.position + by)


def with_token(cache: KVCache, slot: Array, keys_values: tuple[Array, Array], metadata: TokenMetadata) -> KVCache:
    """The cache with one token a row in a slot, whatever was there."""
    update = jax.lax.dynamic_update_slice_in_dim
    return KVCache(
        update(cache.keys, keys_values[0], slot, axis=2),
        update(cache.values, keys_values[1], slot, axis=2),
        TokenMetadata(*(update(old, new, slot, axis=1) for old, new in zip(cache.metadata, metadata, strict=True))),
    )


def _token_keys(seed: Array, seeds: Array, order: Array) -> Array:
    def key(row: Array, order: Array) -> Array:
        return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), row), order)

    return jax.vmap(key)(seeds, order)


def draw_token(key: Array, logits: Float[Array, " vocab"], temperature: Array, top_p: Array) -> Int[Array, ""]:
    """A token of the smallest set of likeliest tokens whose probability reaches `top_p`."""
    logits = logits / temperature
    likeliest = jnp.argsort(-logits)
    before = jnp.cumsum(jax.nn.softmax(logits[likeliest])) - jax.nn.softmax(logits[likeliest])
    kept = jnp.where(before < top_p, logits[likeliest], -jnp.inf)
    return likeliest[jax.random.categorical(key, kept)]
