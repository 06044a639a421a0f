"""v5e-256 (`--topology=v5e:16x16`): like `v5e_16`, with the same number of images per chip."""

from ml_collections import ConfigDict

from configs.tpu.text_to_image import with_rows

CHIPS = 256


def get_config() -> ConfigDict:
    """Returns the config: two images per chip."""
    config = with_rows(2 * CHIPS)
    # Sixteen shards of the state are enough. With more, each chip would gather as much data from farther away.
    config.mesh.update(data=16, fsdp=16)
    return config
