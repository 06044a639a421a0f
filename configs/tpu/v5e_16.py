"""v5e-16 (`--topology=v5e:4x4`): full fine-tuning of the generation expert with float32 weights, moments and EMA."""

from ml_collections import ConfigDict

from configs.tpu.text_to_image import with_rows

CHIPS = 16


def get_config() -> ConfigDict:
    """Returns the config: two images per chip."""
    return with_rows(2 * CHIPS)
