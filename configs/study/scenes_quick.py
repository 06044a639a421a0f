"""A part of the study on scenes in under half an hour on two CPU cores: `sft` and `uno` from a given base, one seed.

The base is that in `pretrained/`. `--config.base.checkpoint=DIR` names another: a run of `scenes_pretrain`, or a base
of another study. `first_look` measures less, and `scenes_untuned` more; in one workdir they share their runs.
"""

from __future__ import annotations

import dataclasses

from ml_collections import ConfigDict

from configs.study import scenes
from uno_jax.config import to_config_dict
from uno_jax.study.config import Arm, BasePlan, Evaluation, StudyConfig

BASE = "pretrained/scenes_base"
SCENES, OTHER_SCENES, STEPS, PROMPTS, NOVEL, READ = 8_000, 1_000, 400, 1_000, 500, 100
SCALE = 2.0
"""Guidance scale, chosen for the base on development prompts."""


def study() -> StudyConfig:
    """Returns the study with two arms as they are configured, and fewer scenes, steps and prompts."""
    return dataclasses.replace(
        scenes.study(),
        data=scenes.dataset(SCENES, OTHER_SCENES),
        base=BasePlan(checkpoint=BASE),
        arms=(Arm("sft", "scenes_sft", scale=SCALE), Arm("uno", "scenes_uno", scale=SCALE)),
        seeds=1,
        steps=STEPS,
        score_every=0,
        curve=(),
        final=(
            Evaluation("draw", "test", PROMPTS, 1.0),
            Evaluation("draw", "test", PROMPTS),
            Evaluation("draw", "novel", NOVEL),
        ),
        reading=Evaluation("read", "test", READ),
    )


def get_config() -> ConfigDict:
    """Returns the study."""
    return to_config_dict(study())
