"""UNO post-training of BAGEL-7B-MoT at up to 512 x 512 pixels: `bagel_7b_uno` with rows for smaller pictures.

A row holds about eleven samples, and pictures of many aspect ratios fill its latents.
"""

from ml_collections import ConfigDict

from configs import bagel_7b_uno


def get_config() -> ConfigDict:
    """Returns the config."""
    config = bagel_7b_uno.get_config()
    data = config.data
    data.vae_transform.update(max_side=512, min_side=256, stride=16)
    data.latent_tokens = 8192
    data.text_tokens, data.vit_tokens, data.caption_tokens, data.query_tokens = 1792, 3072, 3328, 2048
    data.packing_bins = 16
    return config
