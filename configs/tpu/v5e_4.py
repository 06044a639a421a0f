"""v5e-4 (`--topology=v5e:2x2`): UNO on low-rank adapters of the generation expert on frozen bfloat16 weights."""

from ml_collections import ConfigDict

from configs.tpu.text_to_image import with_rows
from uno_jax.training.state import ADAPTERS_TRAINABLE

CHIPS = 4


def get_config(chips: int = CHIPS) -> ConfigDict:
    """Returns the config for `chips` chips: one image per chip, adapters of rank 16."""
    config = with_rows(chips)
    config.trainable = ADAPTERS_TRAINABLE
    config.model.decoder.adapter_rank = 16
    # Low-rank tuning takes a higher learning rate than full fine-tuning.
    config.optimizer.learning_rate = 1e-4
    return config
