"""v5e-256 (`--topology=v5e:16x16`): as `v5e_16`, at the same number of pictures a chip."""

from ml_collections import ConfigDict

from configs.tpu.text_to_image import with_rows

CHIPS = 256


def get_config() -> ConfigDict:
    """Two pictures a chip."""
    config = with_rows(2 * CHIPS)
    # Sixteen parts of the state are enough; cut finer, each chip would gather as much from farther away.
    config.mesh.update(data=16, fsdp=16)
    return config
