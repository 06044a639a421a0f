"""Representation alignment on scenes, a baseline of `scenes_uno`: vision features without the understanding expert.

The states of the generation expert after its second layer are projected and regressed on the vision encoder's features
of the clean target.
"""

from ml_collections import ConfigDict

from configs import scenes_sft


def get_config() -> ConfigDict:
    """Returns `scenes_sft` with the align loss."""
    config = scenes_sft.get_config()
    config.model.align_layer = 2
    config.objective.align_weight = 0.05
    return config
