"""v5e-16 (`--topology=v5e:4x4`) with four images per chip: like `v5e_16`, with layer inputs in host memory."""

from ml_collections import ConfigDict

from configs.tpu.text_to_image import with_rows
from configs.tpu.v5e_16 import CHIPS


def get_config() -> ConfigDict:
    """Returns the config: four images per chip."""
    config = with_rows(4 * CHIPS)
    config.model.decoder.remat = "offload"
    return config
