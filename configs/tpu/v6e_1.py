"""One v6e chip (`--topology=v6e:1x1`): UNO on low-rank adapters of the generation expert, like `v5e_4`."""

from ml_collections import ConfigDict

from configs.tpu import v5e_4


def get_config() -> ConfigDict:
    """Returns the config: one image per step."""
    return v5e_4.get_config(chips=1)
