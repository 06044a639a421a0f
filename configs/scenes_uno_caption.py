"""UNO on scenes with the caption loss only: an ablation of `scenes_uno` without metaqueries."""

from ml_collections import ConfigDict

from configs import scenes_uno


def get_config() -> ConfigDict:
    """Returns `scenes_uno` without metaqueries."""
    config = scenes_uno.get_config()
    config.model.num_metaqueries = 0
    config.data.update(method="uno_caption", query_tokens=0)
    config.objective.balance.visual = 0.0
    return config
