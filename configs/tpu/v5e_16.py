"""v5e-16 (`--topology=v5e:4x4`): full fine-tuning of the generation expert, float32 master, moments and average."""

from ml_collections import ConfigDict

from configs.tpu.text_to_image import with_rows

CHIPS = 16


def get_config() -> ConfigDict:
    """Two pictures a chip."""
    return with_rows(2 * CHIPS)
