"""Expected names and shapes of the tensors in the public files."""

from __future__ import annotations

from uno_jax.interop.names import FixedTable, Shape, TensorName, autoencoder_tensors, fixed_tables, model_tensors
from uno_jax.models.config import AutoencoderConfig, ModelConfig


def expected_public_tensors(config: ModelConfig) -> dict[str, Shape]:
    """Returns names and shapes of the tensors in `ema.safetensors`, fixed tables included."""
    tensors: list[TensorName | FixedTable] = [*model_tensors(config), *fixed_tables(config)]
    return {entry.public: entry.public_shape for entry in tensors}


def expected_autoencoder_tensors(config: AutoencoderConfig) -> dict[str, Shape]:
    """Returns names and shapes of the tensors in `ae.safetensors`."""
    return {entry.public: entry.public_shape for entry in autoencoder_tensors(config)}
