"""What held-out losses and pictures of a run need: its config, tokenizer, mesh, and the encoding of its pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from jax.sharding import Mesh

from uno_jax.batch import Batch, PixelBatch
from uno_jax.data.mixture import Mixture
from uno_jax.data.tokenizer import Tokenizer
from uno_jax.models.autoencoder import make_autoencoder
from uno_jax.models.autoencoder_batch import encode_batch
from uno_jax.run.config import RunConfig
from uno_jax.training.state import Params


class RunContext(NamedTuple):
    """Parts of a run that generating pictures and encoding batches need."""

    config: RunConfig
    tokenizer: Tokenizer
    mesh: Mesh
    autoencoder_params: Params
    workdir: Path
    held_out: Mixture | None = None
    """The held-out records (`open_held_out`); None if the run reads none."""


def make_encode(context: RunContext) -> Callable[[PixelBatch | Batch], Batch]:
    """Returns a function that encodes the latent images of a host's batch."""
    autoencoder = make_autoencoder(context.config.model.autoencoder)
    return lambda batch: encode_batch(autoencoder, context.autoencoder_params, batch, context.config.model)
