"""Reconstruction alignment of BAGEL-7B-MoT, a baseline: the target's own ViT patches as context, flow loss only.

Learning rate (4e-5) and EMA are those published for this method.
"""

from ml_collections import ConfigDict

from configs import bagel_7b_sft


def get_config() -> ConfigDict:
    """Returns `bagel_7b_sft` with the reconstruction method."""
    config = bagel_7b_sft.get_config()
    config.data.update(method="reca", text_tokens=64, vit_tokens=2816)
    config.optimizer.update(learning_rate=4e-5, ema_decay=0.9999)
    return config
