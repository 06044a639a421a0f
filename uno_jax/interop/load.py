"""A model ready for sampling, from a run's checkpoint or from a directory in the public layout."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import flax.linen as nn
import jax
from jax.sharding import Mesh
from jax.typing import DTypeLike

from uno_jax.data.tokenizer import Tokenizer
from uno_jax.data.transforms import ImageTransform
from uno_jax.interop.source import find_source
from uno_jax.models.autoencoder import make_autoencoder
from uno_jax.models.config import ModelConfig
from uno_jax.parallel.mesh import MeshConfig, make_mesh, replicated
from uno_jax.training.state import Params


@dataclass(frozen=True)
class LoadedModel:
    """All that sampling needs of a checkpoint."""

    config: ModelConfig
    params: Params
    autoencoder: nn.Module
    autoencoder_params: Params
    """Empty for the pixel autoencoder."""
    tokenizer: Tokenizer
    vae_transform: ImageTransform
    vit_transform: ImageTransform
    time_shift: float
    """That the run trained with; the public implementation's 3.0 where nothing says."""
    origin: str
    """What was loaded, for people and for pictures' metadata: the same however its path was spelt."""


def load_model(
    path: str | Path, *, ema: bool = False, dtype: DTypeLike | None = None, mesh: Mesh | None = None
) -> LoadedModel:
    """Loads a model with its autoencoder, tokenizer and transforms.

    Args:
      path: as for `find_source`.
      ema: takes the averages of the trained parameters in place of the parameters themselves (run's checkpoint only).
      dtype: of the parameters; None: as they are stored. The autoencoder is float32 always.
      mesh: where the parameters are placed, as `tree_shardings` says. None: on the first device of this host.

    Raises:
      CheckpointError: nothing is there, there are no averages, tokenizer and vocabulary do not go together, or a file
        is missing or damaged.
      CheckpointMismatch: the tensors of a run's checkpoint are not those of the model that it names.
    """
    mesh = mesh or make_mesh(MeshConfig(), jax.local_devices()[:1])
    source = find_source(path)
    model, settings, tokenizer = source.model(), source.settings(), source.tokenizer()
    params, autoencoder = source.parameters(mesh, replicated(mesh), lambda path: dtype, ema=ema)
    return LoadedModel(
        config=model,
        params=params,
        autoencoder=make_autoencoder(model.autoencoder),
        autoencoder_params=autoencoder,
        tokenizer=tokenizer,
        vae_transform=settings.vae_transform,
        vit_transform=settings.vit_transform,
        time_shift=settings.time_shift,
        origin=f"{source.origin}{', averaged parameters' if ema else ''}",
    )
