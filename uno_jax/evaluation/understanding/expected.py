"""How well a model expects texts after pictures: their cross-entropy, from one forward pass over each text."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from uno_jax.attention.metadata import TokenMetadata
from uno_jax.data.layout import lay_out
from uno_jax.data.plans import Plan, Text
from uno_jax.data.sampling_rows import context_batch, part
from uno_jax.evaluation.understanding.exam import Likelihood
from uno_jax.inference.reader import Reader
from uno_jax.models.config import ModelConfig
from uno_jax.models.decoder import KVCache
from uno_jax.objectives.distances import cross_entropy
from uno_jax.parallel.axes import on_mesh
from uno_jax.parallel.mesh import put_rows
from uno_jax.sampling.text import token_logits


def expected(reader: Reader, contexts: Sequence[Plan], texts: Sequence[Sequence[int]]) -> list[Likelihood]:
    """Returns how well each text, as token ids without delimiters, is expected after its context."""
    read = reader.read(contexts, [0] * len(contexts))
    parts = [
        part(lay_out((*plan, Text(ids=tuple(ids), answer=True)), reader.layout, reader.model.tokenizer), tokens)
        for plan, ids, tokens in zip(contexts, texts, read.tokens, strict=True)
    ]
    batch = context_batch(parts, reader.layout, reader.row_count(len(contexts)))
    ids, metadata, labels, counted = put_rows(
        (batch.text_ids, batch.understanding, batch.text_labels, batch.text_loss), reader.mesh
    )
    with on_mesh(reader.mesh):
        nats = _nats(reader.model.params, ids, metadata, labels, counted, read.cache, model=reader.model.config)
    tokens = np.asarray(batch.text_loss).sum(axis=1)
    return [Likelihood(float(each), int(number)) for each, number in zip(np.asarray(nats), tokens, strict=True)][
        : len(contexts)
    ]


@functools.partial(jax.jit, static_argnames="model")
def _nats(
    params: Any,
    ids: Int[Array, "rows tokens"],
    metadata: TokenMetadata,
    labels: Int[Array, "rows tokens"],
    counted: Bool[Array, "rows tokens"],
    cache: KVCache,
    *,
    model: ModelConfig,
) -> Float[Array, " rows"]:
    """Sums the cross-entropies of the labels that are counted, for each row, in float32."""
    logits, _ = token_logits(params, ids, metadata, cache, model)
    return jnp.sum(jnp.where(counted, cross_entropy(logits.astype(jnp.float32), labels), 0.0), axis=1)
