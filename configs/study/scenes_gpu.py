"""The study on scenes on one GPU: models of tens of millions of parameters, more steps and prompts."""

from __future__ import annotations

import dataclasses

from ml_collections import ConfigDict

from configs.study import scenes
from uno_jax.config import to_config_dict
from uno_jax.study.config import Arm, RunPlan

STEPS = 2_000
ROWS = 128
BATCH = 512

# Changes of every run: the larger model, on larger batches, in the matrix units' dtype.
LARGER = (
    "model.decoder.hidden_size=384",
    "model.decoder.num_layers=8",
    "model.decoder.num_heads=12",
    "model.decoder.num_kv_heads=4",
    "model.decoder.mlp_size=1152",
    "model.decoder.scan_unroll=1",
    "model.vision.hidden_size=192",
    "model.vision.num_layers=4",
    "model.vision.num_heads=6",
    "model.vision.mlp_size=384",
    "model.vision.scan_unroll=1",
    "model.compute_dtype=bfloat16",
    f"data.rows={ROWS}",
    "data.virtual_shards=8",
    "data.workers=8",  # one core makes about a thousand samples a second
)


def get_config() -> ConfigDict:
    """Returns the study with larger models."""
    cpu = scenes.study()
    stages = tuple(RunPlan(plan.config, (*plan.changes, *LARGER)) for plan in cpu.base.stages)
    config = dataclasses.replace(
        cpu,
        base=dataclasses.replace(cpu.base, stages=stages),
        arms=tuple(_larger(arm) for arm in cpu.arms),
        steps=STEPS,
        score_every=STEPS // 4,
        sampling=dataclasses.replace(cpu.sampling, batch=BATCH),
    )
    return to_config_dict(config)


def _larger(arm: Arm) -> Arm:
    return dataclasses.replace(arm, changes=(*arm.changes, *LARGER))
