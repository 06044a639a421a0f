"""UNO on scenes with the visual loss only: an ablation of `scenes_uno` without captions."""

from ml_collections import ConfigDict

from configs import scenes_uno


def get_config() -> ConfigDict:
    """Returns `scenes_uno` without captions."""
    config = scenes_uno.get_config()
    config.data.update(method="uno_visual", caption_tokens=0)
    config.objective.balance.caption = 0.0
    return config
