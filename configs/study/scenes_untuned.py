"""Three arms as they are configured, from the base in `pretrained/`, two seeds each: the table in docs/study.md.

`uno_hidden` is UNO without leakage from the prompt: captions and metaqueries read a noised block that does not see it.
"""

from __future__ import annotations

import dataclasses

from ml_collections import ConfigDict

from configs.study import scenes, scenes_quick
from uno_jax.config import to_config_dict
from uno_jax.study.config import Arm, Evaluation

STEPS, PROMPTS = 200, 1_000


def get_config() -> ConfigDict:
    """Returns `scenes_quick` with another arm, another seed, and all training scenes of the study."""
    quick = scenes_quick.study()
    hidden = ("data.supervise=hidden", "data.latent_tokens=128")  # two noised blocks
    config = dataclasses.replace(
        quick,
        data=scenes.dataset(scenes.SCENES, scenes.OTHER_SCENES),
        arms=(*quick.arms, Arm("uno_hidden", "scenes_uno", hidden, scale=scenes_quick.SCALE)),
        seeds=2,
        steps=STEPS,
        final=(Evaluation("draw", "test", PROMPTS),),
    )
    return to_config_dict(config)
