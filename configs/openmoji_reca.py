"""Reconstruction alignment, a baseline of `openmoji_uno`: the target's own ViT patches as context, flow loss only."""

from ml_collections import ConfigDict

from configs import openmoji_sft


def get_config() -> ConfigDict:
    """Returns `openmoji_sft` with the reconstruction method."""
    config = openmoji_sft.get_config()
    config.data.update(method="reca", text_tokens=16, vit_tokens=108, latent_tokens=192)
    return config
