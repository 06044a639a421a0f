"""v5p-16 (eight chips, `--topology=v5p:2x2x2`): full fine-tuning, float32 master, moments and average."""

from ml_collections import ConfigDict

from configs.tpu.text_to_image import with_rows

CHIPS = 8


def get_config() -> ConfigDict:
    """Four pictures a chip; memory for keeping all matrix products, so that little is computed again."""
    config = with_rows(4 * CHIPS)
    config.model.decoder.remat = "dots"
    return config
