"""Representation alignment on OpenMoji, a baseline of `openmoji_uno`: vision features without understanding expert.

The states of the generation expert after its second layer are projected and regressed on the vision encoder's features
of the clean target. No caption and no metaquery is read.
"""

from ml_collections import ConfigDict

from configs import openmoji_sft


def get_config() -> ConfigDict:
    """Returns `openmoji_sft` with the align loss."""
    config = openmoji_sft.get_config()
    config.model.align_layer = 2
    config.objective.align_weight = 0.5
    return config
