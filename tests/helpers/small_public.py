"""A minimal directory in the public layout, with two layers per network and small widths."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from tests.helpers.paths import REFERENCE
from tests.helpers.public_tensors import expected_autoencoder_tensors, expected_public_tensors
from uno_jax.data.tokenizer_files import TOKENIZER_FILES
from uno_jax.interop.names import fixed_tables
from uno_jax.interop.sizes import model_config_from_directory
from uno_jax.models.config import ModelConfig
from uno_jax.models.positions import sincos_table_2d

DECODER_JSON = {
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 12,
    "vocab_size": 640,
}
VISION_JSON = {
    "hidden_size": 4,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 6,
    "patch_size": 2,
    "image_size": 4,
}
TOP_JSON = {
    "max_latent_size": 2,
    "vit_max_num_patch_per_side": 2,
    "vae_config": {"ch": 32, "ch_mult": [1], "num_res_blocks": 1, "z_channels": 1},
}


def write_json(directory: Path, *, decoder=DECODER_JSON, vision=VISION_JSON, top=TOP_JSON) -> None:
    for name, values in (("llm_config", decoder), ("vit_config", vision), ("config", top)):
        if values is not None:
            (directory / f"{name}.json").write_text(json.dumps(values))


def tensors_of(config: ModelConfig, dtype=np.float32) -> dict[str, np.ndarray]:
    """Returns random tensors of `ema.safetensors` by public name, fixed tables included."""
    generator = np.random.default_rng(0)
    tensors = {
        name: generator.normal(size=shape).astype(dtype) for name, shape in expected_public_tensors(config).items()
    }
    for table in fixed_tables(config):
        tensors[table.public] = sincos_table_2d(table.side, table.features).astype(dtype)
    return tensors


def write_public(directory: Path, dtype=np.float32, decoder: Mapping[str, int] = {}) -> Path:
    """Writes a complete directory in the public layout, with the reference's tokenizer."""
    directory.mkdir(exist_ok=True)
    write_json(directory, decoder={**DECODER_JSON, **decoder})
    config = model_config_from_directory(directory)
    save_file(tensors_of(config, dtype), directory / "ema.safetensors", metadata={"format": "pt"})
    generator = np.random.default_rng(1)
    shapes = expected_autoencoder_tensors(config.autoencoder)
    autoencoder = {name: generator.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    save_file(autoencoder, directory / "ae.safetensors", metadata={"format": "pt"})
    for name in TOKENIZER_FILES:
        shutil.copy(REFERENCE / name, directory / name)
    return directory
