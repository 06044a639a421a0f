"""Two v5e-256 slices (`--topology=2xv5e:16x16`): like `v5e_256`. Only gradients are reduced between slices."""

from ml_collections import ConfigDict

from configs.tpu import v5e_256

CHIPS = 2 * v5e_256.CHIPS


def get_config() -> ConfigDict:
    """Returns the config: two images per chip."""
    config = v5e_256.get_config()
    config.data.rows = config.data.virtual_shards = 2 * CHIPS
    return config
