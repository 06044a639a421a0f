"""`scenes_quick` with all arms, untuned: the tables in docs/study.md. It goes on in the same workdir.

`sft`, `uno` and two more arms have three seeds, the others one. `sft_equal_time` takes as long as `uno`, which does
less than half as many steps a second. In `uno_hidden` captions and metaqueries see the prompt only through the noised
picture, so captions count alike at every t: at high t, what can be read is what the generation expert knows of the
prompt.
"""

from __future__ import annotations

import dataclasses

from ml_collections import ConfigDict

from configs.study import scenes, scenes_quick
from uno_jax.config import to_config_dict
from uno_jax.study.config import Arm

SEEDS, EQUAL_TIME_STEPS = 3, 880
HIDDEN = ("data.supervise=hidden", "data.latent_tokens=128", "objective.caption_time_power=0.0")  # two noised blocks


def get_config() -> ConfigDict:
    """Returns the study."""
    quick = scenes_quick.study()
    thrice = (
        *quick.arms,
        Arm("sft_equal_time", "scenes_sft", scale=scenes_quick.SCALE, steps=EQUAL_TIME_STEPS),
        Arm("uno_hidden", "scenes_uno", changes=HIDDEN, scale=scenes_quick.SCALE),
    )
    left = (arm for arm in scenes.ARMS if arm.name not in {other.name for other in thrice})
    once = (Arm(arm.name, arm.config, scale=scenes_quick.SCALE, seeds=1) for arm in left)
    config = dataclasses.replace(
        quick,
        title="UNO and flow matching on scenes, without tuning",
        arms=(*thrice, *once),
        seeds=SEEDS,
    )
    return to_config_dict(config)
