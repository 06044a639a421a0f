"""Flow-only baseline of `openmoji_uno`: the same data, steps and trainable parameters, no captions or metaqueries."""

from ml_collections import ConfigDict

from configs import openmoji_uno


def get_config() -> ConfigDict:
    """Returns `openmoji_uno` without the supervision of understanding."""
    config = openmoji_uno.get_config()
    config.model.num_metaqueries = 0
    config.data.update(method="sft", caption_tokens=0, query_tokens=0)
    return config
