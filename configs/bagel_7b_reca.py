"""Reconstruction alignment of BAGEL-7B-MoT, a baseline: the context is the target's own ViT patches, flow loss only.

The published learning rate of this method is 4e-5, with an average of weights.
"""

from ml_collections import ConfigDict

from configs import bagel_7b_sft


def get_config() -> ConfigDict:
    """`bagel_7b_sft` with the reconstruction plan."""
    config = bagel_7b_sft.get_config()
    config.data.update(method="reca", text_tokens=64, vit_tokens=2816)
    config.optimizer.update(learning_rate=4e-5, ema_decay=0.9999)
    return config
