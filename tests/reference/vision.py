"""The vision encoder and the connector against `vit.npz`."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import numpy as np

from tests.helpers.public_model import load_public
from tests.reference.harness import Check, Reference, close, exact
from uno_jax.models.positions import sincos_table_2d
from uno_jax.models.vision import Connector, VisionEncoder

FILE = "vit.npz"

UNUSED = {
    f"{FILE}/cu_seqlens": "running sum of seqlens, for a kernel that we do not have",
}


def checks(reference: Reference) -> Iterator[Check]:
    """Patch order, then encoder, connector and position table on two images packed in one row."""
    checkpoint = load_public(reference.directory)
    config, params = checkpoint.config, checkpoint.params
    lengths = reference.array(FILE, "seqlens")
    positions = reference.array(FILE, "position_ids")
    images = [reference.array(FILE, f"image{index}") for index in range(len(lengths))]
    patches = np.concatenate([patchify(image, config.vision.patch_size) for image in images])
    yield Check(FILE, "packed_pixel_values", patches, exact)
    grids = [tuple(side // config.vision.patch_size for side in image.shape[1:]) for image in images]
    yield Check(FILE, "seqlens", np.array([rows * columns for rows, columns in grids], np.int32), exact)
    ids = [(np.arange(r)[:, None] * config.vision.table_side + np.arange(c)).reshape(-1) for r, c in grids]
    yield Check(FILE, "position_ids", np.concatenate(ids).astype(np.int32), exact)

    image_numbers = np.repeat(np.arange(1, len(lengths) + 1), lengths)
    encoder = VisionEncoder(config.vision)
    features = jax.jit(encoder.apply)({"params": params["vision"]}, patches[None], positions[None], image_numbers[None])
    yield Check(FILE, "vit_output", features[0], close())
    connected = Connector(config.decoder.hidden_size).apply({"params": params["connector"]}, features)
    yield Check(FILE, "connector_output", connected[0], close())
    table = sincos_table_2d(config.vision.table_side, config.decoder.hidden_size)
    yield Check(FILE, "connector_plus_pos", connected[0] + table[positions], close())


def patchify(image: np.ndarray, patch: int) -> np.ndarray:
    """A channels-first picture to patches flattened (row, column, channel)."""
    channels, height, width = image.shape
    x = image.reshape(channels, height // patch, patch, width // patch, patch)
    return x.transpose(1, 3, 2, 4, 0).reshape(-1, patch * patch * channels)
