"""Hidden states of noised pictures in the generation expert, by layer."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from uno_jax.attention.metadata import NOISED
from uno_jax.batch import Batch
from uno_jax.inside.subject import SEED, Subject
from uno_jax.models.config import ModelConfig
from uno_jax.models.unified import UnifiedModel
from uno_jax.objectives.draws import Draws, draw
from uno_jax.parallel.axes import on_mesh
from uno_jax.parallel.mesh import put_rows


class States(NamedTuple):
    """States of the noised tokens of records at one time."""

    tokens: Float[np.ndarray, "layers records tokens features"]
    """States of the selected tokens."""
    pooled: Float[np.ndarray, "layers records features"]
    """Mean over all noised tokens of a picture."""


def draws_at(batch: Batch, time: float | Array, config: ModelConfig) -> Draws:
    """Draws the noise of a batch at the given time instead of random ones. The same records have the same noise."""
    draws = draw(batch, SEED, 1.0, config.autoencoder)
    return draws._replace(
        latent_times=batch.latent_time_scale * time,
        caption_times=jnp.full_like(draws.caption_times, time),
        query_times=jnp.full_like(draws.query_times, time),
    )


def hidden_states(
    params: Any, batch: Batch, draws: Draws, config: ModelConfig
) -> Float[Array, "states batch latents features"]:
    """Computes the residual stream of the generation expert: the input of the first layer, then every layer's output.

    A pure function to be jitted.
    """
    model, variables = UnifiedModel(config), {"params": params}
    arguments = (batch, draws.noised, draws.latent_times)
    (streams, _) = model.apply(variables, *arguments, method="embed")
    # The layers sow their outputs in this collection, which no other program makes mutable.
    _, sown = model.apply(variables, *arguments, method="read", mutable=["intermediates"])
    layers = sown["intermediates"]["decoder"]["layers"]["hidden"][0].generation
    return jnp.concatenate([streams.generation[None], layers])


def token_places(batch: Batch, count: int) -> Int[np.ndarray, "rows tokens"]:
    """Selects `count` evenly spaced noised tokens of each row, in order, as indices into the generation buffer.

    A row with fewer tokens repeats its last one. A row of padding has only zeros.
    """
    places = np.zeros((len(batch.generation.role), count), np.int32)
    for row, role in enumerate(np.asarray(batch.generation.role)):
        noised = np.flatnonzero(role == NOISED)
        if len(noised):
            chosen = np.linspace(0, max(len(noised), count) - 1, count).round().astype(int)
            places[row] = noised[np.minimum(chosen, len(noised) - 1)]
    return places


def states_at(
    subject: Subject, batches: Sequence[Batch], records: int, time: float, layers: Sequence[int], tokens: int
) -> States:
    """Computes states of the records at a time.

    Args:
      subject: the model.
      batches: from `encoded_batches`.
      records: number of records in the batches.
      time: t of all noised pictures.
      layers: states of each token: 0 is the input of the first layer, n the output of the n-th.
      tokens: number of tokens to select from each picture.
    """
    mesh, found = subject.reader.mesh, []
    for batch in batches:
        inputs = put_rows((batch, token_places(batch, tokens)), mesh)
        with on_mesh(mesh):
            states = _states(
                subject.reader.model.params, *inputs, np.float32(time), config=subject.config, layers=tuple(layers)
            )
        found.append(jax.device_get(states))
    return States(*(np.concatenate(parts, axis=1)[:, :records] for parts in zip(*found, strict=True)))


@functools.partial(jax.jit, static_argnames=("config", "layers"))
def _states(
    params: Any, batch: Batch, places: Array, time: Array, *, config: ModelConfig, layers: tuple[int, ...]
) -> tuple[Array, Array]:
    hidden = hidden_states(params, batch, draws_at(batch, time, config), config)[jnp.array(layers)]
    hidden = hidden.astype(jnp.float32)
    noised = (batch.generation.role == NOISED)[None, :, :, None]
    pooled = jnp.sum(hidden * noised, axis=2) / jnp.maximum(jnp.sum(noised, axis=2), 1)
    return jnp.take_along_axis(hidden, places[None, :, :, None], axis=2), pooled
