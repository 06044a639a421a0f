"""A part of the study on scenes in under half an hour on two CPU cores: `sft` and `uno` from a given base, one seed.

`--config.base.checkpoint=DIR` names the base: a run of `scenes_pretrain`, or a base of another study.
"""

from __future__ import annotations

import dataclasses

from ml_collections import ConfigDict

from configs.study import scenes
from uno_jax.config import to_config_dict
from uno_jax.study.config import Arm, BasePlan, Evaluation

PROMPTS = 1_000


def get_config() -> ConfigDict:
    """Returns the study with two arms as they are configured, and fewer prompts."""
    config = dataclasses.replace(
        scenes.study(),
        base=BasePlan(checkpoint="runs/scenes_pretrain"),
        arms=(Arm("sft", "scenes_sft", scale=2.0), Arm("uno", "scenes_uno", scale=2.0)),
        seeds=1,
        score_every=0,
        curve=(),
        final=(
            Evaluation("draw", "test", PROMPTS, 1.0),
            Evaluation("draw", "test", PROMPTS),
            Evaluation("draw", "novel", PROMPTS // 2),
        ),
        reading=Evaluation("read", "test", 100),
    )
    return to_config_dict(config)
