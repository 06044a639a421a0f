"""Writes the checkpoint of a run of a small model without running it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import optax

from tests.helpers.paths import REFERENCE
from tests.helpers.small_model import small_model, small_params
from uno_jax.config import to_json
from uno_jax.data.config import DataConfig
from uno_jax.data.tokenizer_files import TOKENIZER_FILES
from uno_jax.data.transforms import ImageTransform
from uno_jax.interop.provenance import Provenance
from uno_jax.objectives.config import ObjectiveConfig
from uno_jax.run.config import RunConfig
from uno_jax.training.checkpoints import Checkpoints
from uno_jax.training.state import UNO_TRAINABLE, create_state

TOKENIZER = {name: (REFERENCE / name).read_bytes() for name in TOKENIZER_FILES}
MODEL = small_model(decoder={"vocab_size": 640})
RUN = RunConfig(
    model=MODEL,
    data=DataConfig(vae_transform=ImageTransform(32, 16, 8), vit_transform=ImageTransform(24, 12, 4)),
    objective=ObjectiveConfig(time_shift=4.0),
)


def write_checkpoint(
    directory: Path,
    *,
    ema: bool = True,
    model=MODEL,
    tokenizer=TOKENIZER,
    params=None,
    trainable=UNO_TRAINABLE,
    autoencoder=None,
):
    """Writes a run's checkpoint of step 3, whose EMA is the trained parameters plus 1."""
    params = small_params(MODEL) if params is None else params
    state = create_state(params, trainable, optax.sgd(1.0), ema=ema).replace(step=jnp.int32(3))
    if ema:
        state = state.replace(ema=jax.tree.map(lambda x: x + 1, state.ema))
    assets = {
        "config.json": json.dumps(to_json(dataclasses.replace(RUN, model=model))).encode(),
        "model.json": json.dumps(to_json(model)).encode(),
        **tokenizer,
        **Provenance(trained=trainable).assets(),
    }
    checkpoints = Checkpoints(directory / "checkpoints", keep=1, assets=assets)
    checkpoints.save(3, state, {}, autoencoder)
    checkpoints.close()
    return state
