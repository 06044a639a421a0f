"""v5p-16 (eight chips, `--topology=v5p:2x2x2`): full fine-tuning with float32 weights, moments and EMA."""

from ml_collections import ConfigDict

from configs.tpu.text_to_image import with_rows

CHIPS = 8


def get_config() -> ConfigDict:
    """Returns the config: four images per chip. All matrix products are saved, so little is recomputed."""
    config = with_rows(4 * CHIPS)
    config.model.decoder.remat = "dots"
    return config
