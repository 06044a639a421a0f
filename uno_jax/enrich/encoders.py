"""What `prepare_data encode` can store of a record's pictures: the autoencoder's moments, or vision features."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from uno_jax.config import ConfigError
from uno_jax.data import encoded, features
from uno_jax.data.methods import Inputs
from uno_jax.data.plans import Pixels
from uno_jax.data.record import Record
from uno_jax.data.transforms import ImageTransform
from uno_jax.interop.source import Source
from uno_jax.models.autoencoder import make_autoencoder
from uno_jax.models.autoencoder_batch import encode_pictures
from uno_jax.models.config import ModelConfig, autoencoder_fields, vision_fields
from uno_jax.models.vision_batch import encode_patches
from uno_jax.parallel.mesh import host_mesh, replicated
from uno_jax.run.config import RunConfig
from uno_jax.run.encoded import feature_facts, moment_facts, parameters_hash
from uno_jax.training.initialise import abstract_params


@dataclass(frozen=True)
class Encoder:
    """Encodes pictures."""

    kind: str
    """Kind of the annex."""
    facts: Mapping[str, Any]
    """What the result depends on."""
    uses: Callable[[Inputs, Record], Sequence[tuple[ImageTransform, int]]]
    """Returns the pictures of a record to encode: a transform and the number of the picture, 0 the target."""
    encode: Callable[[Sequence[Pixels]], list[np.ndarray]]
    """Encodes pictures of any number and sizes."""
    dtype: str
    """dtype of what is stored."""


def moment_encoder(config: RunConfig, source: Source) -> Encoder:
    """Returns the encoder of the pictures that runs of a config give as latents.

    Raises:
      ConfigError: the config is of another autoencoder than the source's.
      CheckpointError: the source is damaged.
    """
    model, data = config.model, config.data
    _check_fields("autoencoder", autoencoder_fields, model, source)
    params = source.autoencoder_params(replicated(host_mesh()))

    def uses(inputs: Inputs, record: Record) -> Sequence[tuple[ImageTransform, int]]:
        if record.task == "understanding" and data.method != "pretrain":
            return ()
        return [(inputs.vae_transform, number) for number in range(1 + len(record.sources))]

    return Encoder(
        encoded.KIND,
        moment_facts(model, data, parameters_hash(params)),
        uses,
        functools.partial(encode_pictures, make_autoencoder(model.autoencoder), params, config=model),
        encoded.FLOAT,
    )


def feature_encoder(config: RunConfig, source: Source) -> Encoder:
    """Returns the encoder of the pictures that runs of a config give as ViT patches or as targets of metaqueries.

    Raises:
      ConfigError: the config is of another vision encoder than the source's.
      CheckpointError: the source is damaged.
    """
    model, data = config.model, config.data
    _check_fields("vision encoder", vision_fields, model, source)
    others = [name for name in abstract_params(source.model()) if name != "vision"]
    mesh, dtype = host_mesh(), jnp.dtype(config.frozen_dtype)
    read = source.parameters(mesh, replicated(mesh), lambda path: dtype, ignored=(*others, "autoencoder"))
    params = read.params["vision"]
    facts = feature_facts(config, data, parameters_hash(params))

    def uses(inputs: Inputs, record: Record) -> Sequence[tuple[ImageTransform, int]]:
        return [(inputs.patch_transform(use), number) for use, number in features.feature_uses(record, facts)]

    return Encoder(
        features.KIND, facts, uses, functools.partial(encode_patches, params, config=model), model.compute_dtype
    )


def _check_fields(
    what: str, fields_of: Callable[[ModelConfig], dict[str, Any]], own: ModelConfig, source: Source
) -> None:
    ours, theirs = fields_of(own), fields_of(source.model())
    for name in sorted({*ours, *theirs}):
        if ours.get(name) != theirs.get(name):
            raise ConfigError(
                f"the {what} of {source.origin} has {name} {theirs.get(name)}, and config.model has {ours.get(name)}. "
                "Give the config of the model in --checkpoint"
            )
