"""UNO on OpenMoji with low-rank adapters of rank 16. The generation expert itself is frozen.

This is the cheapest way to post-train a large checkpoint: only the adapters have gradients, optimizer state and EMA
weights.
"""

from ml_collections import ConfigDict

from configs import openmoji_uno
from uno_jax.training.state import ADAPTERS_TRAINABLE


def get_config() -> ConfigDict:
    """Returns `openmoji_uno` with adapters."""
    config = openmoji_uno.get_config()
    config.model.decoder.adapter_rank = 16
    config.trainable = ADAPTERS_TRAINABLE
    return config
