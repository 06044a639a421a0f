"""The shown pictures: noised and decoded, and the captions that the understanding expert writes of them."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt8

from uno_jax.attention.metadata import NOISED, TokenMetadata
from uno_jax.batch import Batch
from uno_jax.data.plans import Plan
from uno_jax.data.sampling_rows import caption_parts, context_batch
from uno_jax.inside.states import draws_at
from uno_jax.inside.subject import Subject, encoded_batches, grid_of, target_of
from uno_jax.parallel.axes import on_mesh
from uno_jax.parallel.mesh import put_rows
from uno_jax.sampling.cache import Params, read_context
from uno_jax.sampling.decode import decode_pictures
from uno_jax.sampling.text import TextConfig, write_text, written_ids


def noised_pictures(
    subject: Subject, plans: Sequence[Plan], numbers: Sequence[int], time: float
) -> list[UInt8[np.ndarray, "_height _width 3"]]:
    """Decodes the noised targets of the plans at a time.

    Args:
      subject: the model.
      plans: the plans, from `noised_only`.
      numbers: number of each record, which determines its noise.
      time: t of the noised targets.
    """
    model = subject.reader.model
    [batch] = encoded_batches(subject, plans, len(plans), numbers)
    noised = np.asarray(jax.jit(lambda batch: draws_at(batch, time, model.config).noised)(batch))
    tokens = [latents[role == NOISED] for latents, role in zip(noised, batch.generation.role, strict=True)]
    grids = [grid_of(plan, subject) for plan in plans]
    return decode_pictures(model.autoencoder, model.autoencoder_params, tokens, grids, model.config)


def write_captions(
    subject: Subject, plans: Sequence[Plan], numbers: Sequence[int], times: Sequence[float], max_length: int
) -> list[list[str]]:
    """Writes a caption of each noised target at each time.

    Args:
      subject: the model.
      plans: the plans, from `noised_only`. A caption depends on their contexts only through the noised target.
      numbers: number of each record, which determines its noise.
      times: t of the noised targets.
      max_length: maximum number of tokens of a caption, including the start token.

    Returns:
      The captions of all plans, for each time.
    """
    model, mesh, layout = subject.reader.model, subject.reader.mesh, subject.reader.layout
    parts = [
        caption_parts(plan[:-1], target_of(plan), layout, model.tokenizer, occurrence=number)
        for plan, number in zip(plans, numbers, strict=True)
    ]
    blocks, starts = zip(*parts, strict=True)
    rows = subject.reader.row_count(len(plans))
    metadata = context_batch(starts, layout, rows).understanding
    batch, first = put_rows(
        (
            subject.reader.encoded(context_batch(blocks, layout, rows)),
            TokenMetadata(*(x[:, :1] for x in metadata)),
        ),
        mesh,
    )
    text, stop = TextConfig(max_length), (model.tokenizer.end,)

    @jax.jit
    def write(params: Params, batch: Batch, first: TokenMetadata, time: Array) -> Array:
        draws = draws_at(batch, time, model.config)
        cache = read_context(params, batch, draws.noised, model.config, times=draws.latent_times)
        return write_text(params, cache, first, model.tokenizer.start, stop, model.config, text)

    written = []
    for time in times:
        with on_mesh(mesh):
            ids = np.asarray(write(model.params, batch, first, jnp.float32(time)))
        written.append([model.tokenizer.decode(written_ids(row, stop)) for row in ids[: len(plans)]])
    return written
