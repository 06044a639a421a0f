"""A first look at UNO on two CPU cores: `scenes_quick` with fewer prompts. `make train` runs it."""

from __future__ import annotations

import dataclasses

from ml_collections import ConfigDict

from configs.study import scenes_quick
from uno_jax.config import to_config_dict
from uno_jax.study.config import Evaluation

PROMPTS, READ = 300, 50


def get_config() -> ConfigDict:
    """Returns the study."""
    config = dataclasses.replace(
        scenes_quick.study(),
        title="A first look: before UNO, after UNO, and after flow matching alone",
        final=(Evaluation("draw", "test", PROMPTS),),
        reading=Evaluation("read", "test", READ),
    )
    return to_config_dict(config)
