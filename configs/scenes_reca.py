"""Reconstruction alignment on scenes, a baseline of `scenes_uno`: the target is context, as ViT patches; flow loss."""

from ml_collections import ConfigDict

from configs import scenes_sft


def get_config() -> ConfigDict:
    """Returns `scenes_sft` with the reconstruction method."""
    config = scenes_sft.get_config()
    config.data.update(method="reca", text_tokens=8, vit_tokens=64)
    return config
