"""The tiny model of `tiny_run` with an autoencoder that has parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax.numpy as jnp

from tests.helpers.tiny_run import tiny_uno
from uno_jax.run.config import RunConfig
from uno_jax.run.start import model_assets
from uno_jax.training.checkpoints import save_model
from uno_jax.training.initialise import init_autoencoder

AUTOENCODER = {
    "model.autoencoder.kind": "transformer",
    "model.autoencoder.latent_channels": 6,
    **{
        f"model.autoencoder.transformer.{name}": value
        for name, value in {
            "hidden_size": 8,
            "num_layers": 1,
            "num_heads": 2,
            "mlp_size": 8,
            "patch_size": 4,
            "table_side": 4,
        }.items()
    },
}
"""Changes of the tiny model, whose own autoencoder only rearranges pixels."""


def encoding_uno(dataset: Path, **changes: Any) -> RunConfig:
    """Returns `tiny_uno` with a transformer autoencoder."""
    return tiny_uno(dataset, **(AUTOENCODER | changes))


def write_autoencoder(config: RunConfig, directory: Path) -> Path:
    """Writes a checkpoint that holds a random autoencoder, and nothing in place of the other parameters."""
    assets = model_assets(config, Path(config.data.directory) / "tokenizer")
    save_model(directory, {"nothing": jnp.zeros(1)}, init_autoencoder(config.model, 0), assets)
    return directory
