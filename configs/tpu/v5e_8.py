"""v5e-8 (`--topology=v5e:2x4`): full fine-tuning of the generation expert on one host.

Float32 master weights, bfloat16 Adam moments, and EMA weights in host memory.
"""

from ml_collections import ConfigDict

from configs.tpu.text_to_image import with_rows

CHIPS = 8


def get_config() -> ConfigDict:
    """Returns the config: one image per chip."""
    config = with_rows(CHIPS)
    config.optimizer.update(moment_dtype="bfloat16", ema_memory="host")
    return config
