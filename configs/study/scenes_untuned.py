"""`first_look` with two more seeds and more prompts: the table in docs/study.md. It goes on in the same workdir."""

from __future__ import annotations

import dataclasses

from ml_collections import ConfigDict

from configs.study import first_look
from uno_jax.config import to_config_dict
from uno_jax.study.config import Evaluation

SEEDS, PROMPTS, READ = 3, 1_000, 100


def get_config() -> ConfigDict:
    """Returns the study."""
    config = dataclasses.replace(
        first_look.study(),
        title="UNO and flow matching on scenes, without tuning",
        seeds=SEEDS,
        final=(Evaluation("draw", "test", PROMPTS),),
        reading=Evaluation("read", "test", READ),
    )
    return to_config_dict(config)
