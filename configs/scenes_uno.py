"""UNO on scenes: captions and metaqueries supervise the generation expert of a `scenes_pretrain` checkpoint.

Each has a tenth of the flow loss's gradient. Captions count less at high t, where the understanding expert cannot read.
"""

from ml_collections import ConfigDict

from configs import scenes_sft


def get_config() -> ConfigDict:
    """Returns `scenes_sft` with captions, metaqueries and their losses."""
    config = scenes_sft.get_config()
    config.model.num_metaqueries = 64
    config.data.update(method="uno", caption_tokens=36, query_tokens=64)
    config.objective.update(caption_weight=0.02, visual_weight=0.05, caption_time_power=1.0)
    config.objective.balance.update(caption=0.1, visual=0.1)
    return config
