"""Text generation by the understanding expert: captions, answers and thoughts."""

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
    """Settings for text generation."""

    max_length: int = 512
    """Maximum number of tokens including the start token, as in BAGEL's public implementation."""
    temperature: float = 0.0
    """Temperature of the softmax that tokens are drawn from; 0: greedy."""
    top_p: float = 1.0
    """Nucleus sampling: tokens are drawn from the smallest set of most likely tokens with this total probability."""

    def __post_init__(self) -> None:
        if self.max_length < 2:
            raise ConfigError(f"max_length is {self.max_length}: expected 2 or more (it includes the start token)")
        if not 0 <= self.temperature < math.inf:
            raise ConfigError(f"temperature is {self.temperature}: expected a finite number, 0 or more")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p is {self.top_p}: expected a number above 0 and at most 1")


class Writing(NamedTuple):
    """State of text generation, one text per row. A row no longer changes once it has ended."""

    ids: Int[Array, "batch length"]
    """Token ids from the start token. Positions not yet generated, or after a stop token, repeat the last token."""
    written: Int[Array, ""]
    """Number of generated `ids`, including the start token."""
    ended: Bool[Array, " batch"]
    cache: KVCache
    """The context, followed by a slot for each token of `ids` except the last."""
    first: TokenMetadata
    """Metadata of the start token, `[batch, 1]`."""
    seeds: Int[Array, " batch"]
    """Seed of each row."""


def begin_text(
    cache: KVCache, first: TokenMetadata, start: int, length: int, seeds: Int[Any, " batch"] | None = None
) -> Writing:
    """Starts texts of at most `length` tokens with their start tokens. A pure function to be jitted.

    Args:
      cache: the context of each row.
      first: metadata `[batch, 1]` of the start token. Its role is that of the text: a continuation of the context, or
        the caption of a noised block, which sees only that block. Rows with sample 0 have ended.
      start: id of the start token.
      length: maximum number of tokens including the start token.
      seeds: seed of each row for drawing tokens; 0 by default.
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
    """Generates token by token until the texts have `until` tokens, or every row has ended.

    Compiles one program per set of shapes; other numeric settings reuse it. Repeated calls with increasing `until` give
    the same text as one call, which allows streaming.

    A drawn token depends on `seed`, the seed of its row and its place in the sample, but not on other rows.
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
    """Generates complete texts from the start token, by `begin_text` and `continue_text`; see also `written_ids`."""
    writing = begin_text(cache, first, start, config.max_length, seeds)
    return continue_text(params, writing, config.max_length, stop, model, config).ids


def written_ids(ids: Sequence[int] | Int[np.ndarray, " tokens"], stop: Sequence[int]) -> list[int]:
    """Token ids between the start token and the first stop token."""
    written = [int(i) for i in ids][1:]
    return written[: next((i for i, token in enumerate(written) if token in stop), len(written))]


def token_logits(
    params: Params, ids: Int[Array, "batch tokens"], metadata: TokenMetadata, cache: KVCache, model: ModelConfig
) -> tuple[Float[Array, "batch tokens vocab"], tuple[Array, Array]]:
    """Next-token logits of text tokens, and their keys and values, from one forward pass."""
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

    def unfinished(writing: Writing) -> Array:
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

    return jax.lax.while_loop(unfinished, write, writing)


def moved(first: TokenMetadata, by: Array) -> TokenMetadata:
    """Metadata of the token `by` places after the first."""
    return first._replace(order=first.order + by, last_visible=first.last_visible + by, position=first.position + by)


def with_token(cache: KVCache, slot: Array, keys_values: tuple[Array, Array], metadata: TokenMetadata) -> KVCache:
    """Writes one token per row to a slot of the cache."""
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
    """Draws a token from the smallest set of most likely tokens with a total probability of at least `top_p`."""
    logits = logits / temperature
    likeliest = jnp.argsort(-logits)
    before = jnp.cumsum(jax.nn.softmax(logits[likeliest])) - jax.nn.softmax(logits[likeliest])
    kept = jnp.where(before < top_p, logits[likeliest], -jnp.inf)
    return likeliest[jax.random.categorical(key, kept)]
