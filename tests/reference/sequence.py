"""Between our two buffers and the original's one sequence."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from tests.reference.packing import SequenceIndex
from uno_jax.batch import TokenBatch
from uno_jax.models.decoder import Streams


def to_sequence(streams: Streams, index: SequenceIndex) -> np.ndarray:
    """Both buffers of a one-row batch in sequence order: `[1, U, D]`, `[1, G, D]` -> `[tokens, D]`."""
    both = np.concatenate([np.asarray(streams.understanding[0]), np.asarray(streams.generation[0])])
    place = np.concatenate([index.understanding, index.generation])
    sequence = np.zeros((place.max() + 1, both.shape[-1]), both.dtype)
    sequence[place[place >= 0]] = both[place >= 0]
    return sequence


def region(batch: TokenBatch, index: SequenceIndex, name: str) -> np.ndarray:
    """Sequence index of every token of one region (`text`, `vit`, `caption`, `query` or `latent`)."""
    if name == "latent":
        return index.generation
    lengths = [x.shape[1] for x in (batch.text_ids, batch.vit_image, batch.caption_ids, batch.query_index)]
    parts = np.split(index.understanding, np.cumsum(lengths)[:-1])
    return parts[("text", "vit", "caption", "query").index(name)]


def in_order(values: np.ndarray, index: np.ndarray, keep: np.ndarray | None = None) -> np.ndarray:
    """Rows `[tokens, ...]` of a region in sequence order, padding left out, and those not in `keep`."""
    chosen = index >= 0 if keep is None else (index >= 0) & keep
    return np.asarray(values)[chosen][np.argsort(index[chosen], kind="stable")]


def into_buffer(values: np.ndarray, index: np.ndarray) -> jnp.ndarray:
    """Rows in sequence order `[tokens, ...]` into a region's places; zeros for padding. `[1, region, ...]`."""
    out = np.zeros((1, len(index), *values.shape[1:]), values.dtype)
    places = np.flatnonzero(index >= 0)
    out[0, places[np.argsort(index[places], kind="stable")]] = values
    return jnp.asarray(out)
