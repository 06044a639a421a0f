"""Two slices of v5e-256 (`--topology=2xv5e:16x16`): as `v5e_256`; between slices only gradients are added up."""

from ml_collections import ConfigDict

from configs.tpu import v5e_256

CHIPS = 2 * v5e_256.CHIPS


def get_config() -> ConfigDict:
    """Two pictures a chip."""
    config = v5e_256.get_config()
    config.data.rows = config.data.virtual_shards = 2 * CHIPS
    return config
