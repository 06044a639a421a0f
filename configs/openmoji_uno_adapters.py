"""UNO on OpenMoji with low-rank adapters: the generation expert is frozen too, under adapters of rank 16.

The cheapest way to post-train a large checkpoint: optimizer, averages and gradients are of the adapters alone.
"""

from ml_collections import ConfigDict

from configs import openmoji_uno
from uno_jax.training.state import ADAPTERS_TRAINABLE


def get_config() -> ConfigDict:
    """UNO's config with adapters."""
    config = openmoji_uno.get_config()
    config.model.decoder.adapter_rank = 16
    config.trainable = ADAPTERS_TRAINABLE
    return config
