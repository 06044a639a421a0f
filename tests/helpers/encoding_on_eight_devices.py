"""Encodes a batch of images on one and on eight devices, in a process with eight devices.

`XLA_FLAGS=--xla_force_host_platform_device_count=8 python -m tests.helpers.encoding_on_eight_devices` prints the
difference of the moments, the number of devices that hold them, and the work per device relative to one device, and the
difference of vision features.
"""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np

from tests.helpers.small_autoencoder import FLUX, batch_of, model_config, pictures, variables_of
from uno_jax.models import autoencoder_batch
from uno_jax.models.autoencoder import make_autoencoder
from uno_jax.models.config import ModelConfig, VisionConfig
from uno_jax.models.picture_groups import mesh_of
from uno_jax.models.vision import VisionEncoder
from uno_jax.models.vision_batch import encode_patches
from uno_jax.parallel.mesh import host_mesh, replicated

# Ten images of one size, two of another, one of a third: two, one and one slots per device on eight devices.
GRIDS = {(row, sample, 0): (2, 2) for row in range(2) for sample in range(1, 6)}
GRIDS |= {(0, 6, 0): (1, 3), (1, 6, 0): (1, 3), (1, 7, 0): (1, 1)}


def main() -> None:
    assert jax.device_count() == 8, f"{jax.device_count()} devices: set XLA_FLAGS as the docstring says"
    config, autoencoder = model_config(FLUX), make_autoencoder(FLUX)
    params = variables_of(autoencoder)["params"]
    batch = batch_of(pictures(config, GRIDS), config, tokens=32)

    def encode(params):
        return autoencoder_batch.encode_batch(autoencoder, params, batch, config).latent_moments

    def work(params, images: int, together: int, mesh):
        places = np.arange(images * 4, dtype=np.int32).reshape(images, 4)
        moments = np.zeros((64, 2 * config.latent_size), np.float32)
        pixels = batch.latent_pixels.reshape(64, -1)
        encode = autoencoder_batch._encode_images
        lowered = encode.lower(moments, pixels, params, places, autoencoder, config, 2, 2, together, mesh)
        return lowered.compile().cost_analysis()["flops"]

    mesh = host_mesh()
    everywhere = jax.device_put(params, replicated(mesh))
    one, eight = encode(params), encode(everywhere)
    alone = mesh_of(params)
    found = {
        "difference": float(np.abs(np.asarray(one) - np.asarray(eight)).max()),
        "largest": float(np.abs(np.asarray(one)).max()),
        "devices": len(eight.sharding.device_set),
        "share": work(everywhere, 8, 8, mesh) / work(params, 8, 8, alone),
    }
    print(json.dumps(found | features_on(mesh)))


def features_on(mesh) -> dict[str, float]:
    """Returns the largest vision feature of pictures, and its difference between one device and a mesh."""
    config = ModelConfig(vision=VisionConfig(8, 1, 2, mlp_size=8, patch_size=4, table_side=4))
    generator = np.random.default_rng(0)
    shown = [generator.integers(256, size=(8, width, 3), dtype=np.uint8) for width in (8, 16, 8, 8)]
    one = jnp.zeros((1, 1), jnp.int32)
    params = VisionEncoder(config.vision).init(jax.random.key(0), jnp.zeros((1, 1, 48)), one, one)["params"]
    alone, together = (encode_patches(at, shown, config) for at in (params, jax.device_put(params, replicated(mesh))))
    differences = [np.abs(a - b).max() for a, b in zip(alone, together, strict=True)]
    return {"features": float(np.abs(alone[1]).max()), "features_difference": float(max(differences))}


if __name__ == "__main__":
    main()
