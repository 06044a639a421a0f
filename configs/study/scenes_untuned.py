"""`first_look` with another seed, another arm and more prompts: the table in docs/study.md.

It goes on in the workdir of `first_look`. `uno_hidden` is UNO without leakage from the prompt: captions and metaqueries
read a noised block that does not see it.
"""

from __future__ import annotations

import dataclasses

from ml_collections import ConfigDict

from configs.study import first_look, scenes_quick
from uno_jax.config import to_config_dict
from uno_jax.study.config import Arm, Evaluation

PROMPTS, READ = 1_000, 100


def get_config() -> ConfigDict:
    """Returns the study."""
    look = first_look.study()
    hidden = ("data.supervise=hidden", "data.latent_tokens=128")  # two noised blocks
    config = dataclasses.replace(
        look,
        title="UNO and flow matching on scenes, without tuning",
        arms=(*look.arms, Arm("uno_hidden", "scenes_uno", hidden, scale=scenes_quick.SCALE, seeds=1)),
        seeds=2,
        final=(Evaluation("draw", "test", PROMPTS),),
        reading=Evaluation("read", "test", READ),
    )
    return to_config_dict(config)
