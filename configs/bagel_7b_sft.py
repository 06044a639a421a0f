"""Flow-only baseline of `bagel_7b_uno`: the same data, steps and trainable parameters, no captions or metaqueries."""

from ml_collections import ConfigDict

from configs import bagel_7b_uno


def get_config() -> ConfigDict:
    """Returns `bagel_7b_uno` without the supervision of understanding."""
    config = bagel_7b_uno.get_config()
    config.model.num_metaqueries = 0
    config.data.update(method="sft", caption_tokens=0, query_tokens=0)
    return config
