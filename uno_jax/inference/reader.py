"""Reads batches of contexts into key-value caches with a loaded model, and writes text after them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jax.typing import DTypeLike

from uno_jax.attention.metadata import TokenMetadata
from uno_jax.batch import Batch, Layout, PixelBatch
from uno_jax.data.layout import lay_out
from uno_jax.data.plans import Plan, Text
from uno_jax.data.sampling_rows import context_batch, context_bucket, part, token_count
from uno_jax.inference.picture_settings import check_seed
from uno_jax.interop.load import LoadedModel, load_model
from uno_jax.models.apart import arranged
from uno_jax.models.autoencoder_batch import encode_batch
from uno_jax.models.config import ModelConfig, layout_of
from uno_jax.models.decoder import KVCache
from uno_jax.models.quantised import Weights
from uno_jax.objectives.draws import draw
from uno_jax.parallel.axes import on_mesh
from uno_jax.parallel.mesh import MeshConfig, make_mesh, put_rows, row_parts
from uno_jax.sampling.cache import fitted, read_context
from uno_jax.sampling.text import TextConfig, begin_text, continue_text, written_ids

# All random keys derive from this and the seed of each picture or text.
SEED = 0


@dataclass(frozen=True)
class ReadPlans:
    """Plans that have been read into a cache, one per row."""

    plans: tuple[Plan, ...]
    cache: KVCache
    """Cache with `row_count` rows; rows beyond the plans are padding."""
    tokens: tuple[int, ...]
    """Number of tokens of each plan in `cache`."""


@dataclass(frozen=True)
class Reader:
    """A model, and the mesh on which it is placed."""

    model: LoadedModel
    mesh: Mesh

    @property
    def layout(self) -> Layout:
        return layout_of(self.model.config)

    def row_count(self, samples: int) -> int:
        """Returns the padded number of rows: a power of two times the number of row shards of the mesh."""
        parts = row_parts(self.mesh)
        return parts << (-(-samples // parts) - 1).bit_length()

    def encoded(self, batch: PixelBatch | Batch) -> Batch:
        """Encodes the pixels of the batch to latents."""
        return encode_batch(self.model.autoencoder, self.model.autoencoder_params, batch, self.model.config)

    def read(self, plans: Sequence[Plan], seeds: Sequence[int], before: ReadPlans | None = None) -> ReadPlans:
        """Reads contexts in one forward pass.

        Args:
          plans: one plan per context.
          seeds: one seed per plan, for the autoencoder's samples.
          before: cache of the leading tokens of the plans, which is extended; None reads everything.
        """
        layout, tokens = self.layout, before.tokens if before else (0,) * len(plans)
        unread = [
            part(lay_out(plan, layout, self.model.tokenizer, occurrence=seed), start)
            for plan, start, seed in zip(plans, tokens, seeds, strict=True)
        ]
        batch = put_rows(self.encoded(context_batch(unread, layout, self.row_count(len(plans)))), self.mesh)
        slots = context_bucket(max(tokens))
        with on_mesh(self.mesh):
            cache = _read(self.model.params, batch, before and before.cache, model=self.model.config, slots=slots)
        return ReadPlans(tuple(plans), cache, tuple(token_count(plan, layout) for plan in plans))

    def write(
        self, read: ReadPlans, text: TextConfig, seeds: Sequence[int], *, stop: Sequence[int] = (), at_once: int = 0
    ) -> Iterator[list[tuple[int, ...]]]:
        """Writes a text after each context, and yields the token ids written so far.

        A text ends before the model's end token, or before one of `stop`.

        Args:
          read: the contexts.
          text: how tokens are sampled.
          seeds: one seed per context.
          stop: ids of further end tokens.
          at_once: tokens between two yields; 0 yields at the end only.

        Raises:
          ValueError: a seed is out of range.
        """
        for seed in seeds:
            check_seed(seed)
        tokenizer, rows = self.model.tokenizer, self.row_count(len(read.plans))
        starts = [
            part(lay_out((*plan, Text(ids=())), self.layout, tokenizer), tokens)
            for plan, tokens in zip(read.plans, read.tokens, strict=True)
        ]
        metadata = context_batch(starts, self.layout, rows).understanding
        first = put_rows(TokenMetadata(*(x[:, :1] for x in metadata)), self.mesh)
        row_seeds = put_rows(np.array([*seeds, *[0] * (rows - len(seeds))], np.int32), self.mesh)
        length = 1 + context_bucket(text.max_length - 1)  # buckets limit the number of programs; `until` ends the text
        with on_mesh(self.mesh):
            writing = _begin(read.cache, first, row_seeds, start=tokenizer.start, length=length)
        ends, until, done = (tokenizer.end, *stop), 1, False
        while not done:
            until = min(until + at_once, text.max_length) if at_once else text.max_length
            with on_mesh(self.mesh):
                writing = continue_text(self.model.params, writing, until, ends, self.model.config, text, SEED)
            ids = np.asarray(writing.ids)[: len(read.plans)]
            written = int(writing.written)
            done = written < until or until == text.max_length or bool(np.all(writing.ended))
            yield [tuple(written_ids(row[:written], ends)) for row in ids]


def load_reader(
    path: Any,
    *,
    ema: bool = False,
    dtype: DTypeLike | None = None,
    mesh: MeshConfig | None = None,
    weights: Weights = "plain",
) -> Reader:
    """Loads a model onto the devices of this host.

    Args:
      path: as for `load_model`.
      ema: loads the EMA of the trained parameters.
      dtype: dtype of parameters and matrix products. None keeps the stored and configured ones.
      mesh: mesh of this host's devices; None uses one device.
      weights: as for `load_model`.

    Raises:
      CheckpointError, CheckpointMismatch, ConfigError: as for `load_model`, or the mesh does not fit the devices.
    """
    devices = jax.local_devices()
    placed = make_mesh(MeshConfig(), devices[:1]) if mesh is None else make_mesh(mesh, devices)
    model = load_model(path, ema=ema, dtype=dtype, mesh=placed, weights=weights)
    if dtype is not None:
        name: Any = np.dtype(dtype).name
        config = dataclasses.replace(model.config, compute_dtype=name)
        model = dataclasses.replace(model, config=config)
    params = arranged(model.params, model.config.decoder, free=True)
    return Reader(dataclasses.replace(model, params=params), placed)


@functools.partial(jax.jit, static_argnames=("model", "slots"))
def _read(params: Any, batch: Batch, cache: KVCache | None, *, model: ModelConfig, slots: int) -> KVCache:
    """Reads a batch after `cache`, which is first resized to `slots` slots to limit the number of programs."""
    latents = draw(batch, SEED, 1.0, model.autoencoder).latents
    return read_context(params, batch, latents, model, None if cache is None else fitted(cache, slots))


@functools.partial(jax.jit, static_argnames=("start", "length"))
def _begin(cache: KVCache, first: TokenMetadata, seeds: Any, *, start: int, length: int) -> Any:
    return begin_text(cache, first, start, length, seeds)
