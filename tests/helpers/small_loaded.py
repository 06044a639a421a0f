"""The small model for commands and notebooks, loaded or as a checkpoint."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax

from tests.helpers.made_up_records import VAE_TRANSFORM, VIT_TRANSFORM, small_tokenizer
from tests.helpers.small_model import small_model, small_params
from uno_jax.config import to_json
from uno_jax.data.tokenizer import train_tokenizer
from uno_jax.data.tokenizer_files import TOKENIZER_FILES
from uno_jax.inference.generate import Generator
from uno_jax.inference.picture_settings import PictureSettings
from uno_jax.inference.reader import Reader
from uno_jax.interop.load import LoadedModel
from uno_jax.models.autoencoder import make_autoencoder
from uno_jax.parallel.mesh import MeshConfig, make_mesh
from uno_jax.training.checkpoints import save_model

# Both steps are guided, so that only one step program is compiled.
QUICK: Mapping[str, Any] = {"timesteps": 3, "time_shift": 1.0}
QUICK_SETTINGS = PictureSettings(**QUICK)


@functools.cache
def small_generator() -> Generator:
    model = small_model()
    loaded = LoadedModel(
        config=model,
        params=small_params(model),
        autoencoder=make_autoencoder(model.autoencoder),
        autoencoder_params={},
        tokenizer=small_tokenizer(),
        vae_transform=VAE_TRANSFORM,
        vit_transform=VIT_TRANSFORM,
        time_shift=2.0,
        origin="small",
    )
    return Generator(Reader(loaded, make_mesh(MeshConfig(), jax.devices()[:1])))


def save_small_checkpoint(directory: Path, seed: int = 0, params: Any = None) -> Path:
    """Saves the small model as a checkpoint of a run, with the given parameters, or those of a seed."""
    model = small_model()
    settings = {
        "data": {"vae_transform": to_json(VAE_TRANSFORM), "vit_transform": to_json(VIT_TRANSFORM)},
        "objective": {"time_shift": 2.0},
    }
    with TemporaryDirectory() as tokenizer:
        train_tokenizer(["thing number yes no"] * 3, 280, tokenizer)
        files = {name: (Path(tokenizer) / name).read_bytes() for name in TOKENIZER_FILES}
    assets = files | {
        "model.json": json.dumps(to_json(model)).encode(),
        "config.json": json.dumps(settings).encode(),
    }
    save_model(directory, small_params(model, seed) if params is None else params, {}, assets)
    return directory
