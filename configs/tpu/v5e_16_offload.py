"""v5e-16 (`--topology=v5e:4x4`) with four pictures a chip: as `v5e_16`, layer inputs waiting in the hosts' memory."""

from ml_collections import ConfigDict

from configs.tpu.text_to_image import with_rows
from configs.tpu.v5e_16 import CHIPS


def get_config() -> ConfigDict:
    """Four pictures a chip."""
    config = with_rows(4 * CHIPS)
    config.model.decoder.remat = "offload"
    return config
