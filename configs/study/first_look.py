"""A first look at UNO on two CPU cores: `sft` and `uno` from the base in `pretrained/`, judged by the exact scorer."""

from __future__ import annotations

import dataclasses

from ml_collections import ConfigDict

from configs.study import scenes, scenes_quick
from uno_jax.config import to_config_dict
from uno_jax.study.config import Evaluation, StudyConfig

SCENES, OTHER_SCENES, STEPS, PROMPTS = 8_000, 1_000, 400, 300


def study() -> StudyConfig:
    """Returns `scenes_quick` with fewer scenes, steps and prompts."""
    return dataclasses.replace(
        scenes_quick.study(),
        title="A first look: before UNO, after UNO, and after flow matching alone",
        data=scenes.dataset(SCENES, OTHER_SCENES),
        steps=STEPS,
        final=(Evaluation("draw", "test", PROMPTS),),
        reading=Evaluation("read", "test", 50),
    )


def get_config() -> ConfigDict:
    """Returns the study."""
    return to_config_dict(study())
