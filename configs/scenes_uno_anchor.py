"""UNO on scenes, held to the velocity of the model that it starts from, so that post-training does not drift."""

from ml_collections import ConfigDict

from configs import scenes_uno


def get_config() -> ConfigDict:
    """Returns `scenes_uno` with the anchor loss."""
    config = scenes_uno.get_config()
    config.objective.anchor_weight = 0.1
    return config
