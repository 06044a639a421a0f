"""Condition dropout: removes conditions from a complete plan, and supervision where the config asks for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from uno_jax.data.methods import Draws, MethodConfig
from uno_jax.data.plans import CleanLatents, DroppedImage, Item, NoisedTarget, Plan, Text, VitImage


def drop_conditions(plan: Plan, config: MethodConfig, draws: Draws) -> Plan:
    """Drops conditions with one random draw per droppable item, then applies `config.supervise`.

    A dropped text leaves no trace. A dropped image still advances the position.
    """
    rates: Mapping[type, float] = {
        Text: config.text_dropout,
        VitImage: config.vit_dropout,
        CleanLatents: config.vae_dropout,
    }
    kept: list[Item] = []
    prompt_dropped = False
    for item in plan:
        if not item.droppable or draws.random() >= rates[type(item)]:
            kept.append(item)
        elif isinstance(item, Text):
            prompt_dropped = True
        else:
            kept.append(DroppedImage())
    if config.supervise == ("prompt_kept" if prompt_dropped else "prompt_dropped"):
        kept = [replace(i, caption=None, query_pixels=None) if isinstance(i, NoisedTarget) else i for i in kept]
    return tuple(kept)
