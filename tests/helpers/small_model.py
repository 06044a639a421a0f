"""A small model, and encoded batches for it that need no autoencoder."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from tests.helpers.made_up_plans import TOKENIZER, batch_of
from tests.helpers.made_up_records import LAYOUT
from tests.helpers.pixels import to_float
from uno_jax.batch import Batch
from uno_jax.models.adapters import ADAPTED_LAYERS, ADAPTERS, merged_kernel
from uno_jax.models.config import AutoencoderConfig, DecoderConfig, ModelConfig, VisionConfig
from uno_jax.training.initialise import abstract_params

Params = Any

# Three plans of a few items fit into a row.
CAPACITIES = {"text": 64, "vit": 24, "caption": 32, "query": 24, "latent": 72}

# Only compilers before JAX 0.11 accept the second option, which halves compile time again.
_QUICK = {"xla_backend_optimization_level": 0} | (
    {"xla_cpu_use_fusion_emitters": False} if jax.__version_info__ < (0, 11) else {}
)
quick_jit = functools.partial(jax.jit, compiler_options=_QUICK)
"""`jax.jit` with at most half the compile time, for small programs that run a few times."""


def small_model(*, decoder: Mapping[str, Any] = {}, vision: Mapping[str, Any] = {}, **changes) -> ModelConfig:
    """Returns the config of a float32 model with two layers of width 32 and the sizes of the made-up layout."""
    config = ModelConfig(
        decoder=DecoderConfig(
            hidden_size=32,
            num_layers=2,
            num_heads=4,
            num_kv_heads=2,
            head_dim=8,
            mlp_size=48,
            vocab_size=len(TOKENIZER),
            rope_theta=100.0,
            context_length=2048,
        ),
        vision=VisionConfig(
            hidden_size=16,
            num_layers=2,
            num_heads=2,
            mlp_size=24,
            patch_size=LAYOUT.vit_patch_size,
            table_side=LAYOUT.vit_table_side,
        ),
        autoencoder=AutoencoderConfig(kind="pixel", latent_channels=48, downsample=4),
        latent_patch_size=2,
        max_latent_size=LAYOUT.max_latent_size,
        num_metaqueries=LAYOUT.num_metaqueries,
    )
    return dataclasses.replace(
        config,
        decoder=dataclasses.replace(config.decoder, **decoder),
        vision=dataclasses.replace(config.vision, **vision),
        **changes,
    )


def small_params(config: ModelConfig, seed: int = 0) -> Params:
    """Returns random parameters in which no bias is 0 and no norm scale is 1, so that each has an effect.

    A leaf depends only on its name and shape, so models that differ in one part share all others.
    """

    def leaf(path: tuple[str, ...], shape: tuple[int, ...]) -> jax.Array:
        values = np.random.default_rng([seed, *"/".join(path).encode()]).standard_normal(shape, np.float32)
        if path[-1] in ("bias", "scale"):
            return jnp.asarray((path[-1] == "scale") + 0.1 * values)
        return jnp.asarray(values * shape[-2] ** -0.5)

    shapes = flatten_dict(abstract_params(config))
    return unflatten_dict({path: leaf(path, shape.shape) for path, shape in shapes.items()})


def model_batch(*rows, capacities=CAPACITIES, layout=LAYOUT) -> Batch:
    """Like `batch_of`, with moments in place of pixels: the pixels as the mean, and a non-negligible variance."""
    batch = batch_of(*rows, capacities=capacities, layout=layout)
    mean = to_float(batch.latent_pixels)
    return Batch(**batch.shared(), latent_moments=np.concatenate([mean, np.full_like(mean, -2.0)], axis=-1))


def merge_adapters(params: Params, config: DecoderConfig) -> Params:
    """Merges the adapters into the kernels, in the kernels' dtypes."""
    flat = flatten_dict(params, sep="/")
    merged = {path: leaf for path, leaf in flat.items() if not path.startswith(ADAPTERS + "/")}
    for name in ADAPTED_LAYERS:
        path, adapter = f"decoder/layers/generation/{name}/kernel", f"{ADAPTERS}/{name}"
        kernel = merged_kernel(
            flat[path], flat[f"{adapter}/down/kernel"], flat[f"{adapter}/up/kernel"], config.adapter_scale
        )
        merged[path] = kernel.astype(flat[path].dtype)
    return unflatten_dict(merged, sep="/")
