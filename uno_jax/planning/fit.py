"""The largest batch and the cheapest rematerialisation that fit on a slice; and what to change where nothing does."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from uno_jax.parallel.mesh import make_mesh, row_parts
from uno_jax.planning.chips import GIB, Slice, describe_devices
from uno_jax.planning.plan import Plan
from uno_jax.planning.sampler import SamplerPlan
from uno_jax.run_config import RunConfig

AnyPlan = TypeVar("AnyPlan", Plan, SamplerPlan)

CHEAPEST_FIRST = ("none", "dots", "save_projections", "save_attention", "full", "offload")
"""Rematerialisation policies, from the one that computes nothing again and keeps most."""
LARGER = "a larger slice, or chips with more memory (--topology)"
LEAST_MEMORY = "full"
"""The policy that decides about the batch; `offload` moves activations at every layer, and is tried where it fails."""


def largest_fit(config: RunConfig, target: Slice, plan_of: Callable[[RunConfig], Plan]) -> Iterator[Plan]:
    """Compiles one candidate after the other; the last that fits is the answer.

    First the batch, with the policy that keeps least: rows a part of the mesh are doubled while they fit, then what
    lies between is halved. Then the policies, cheapest first, until one fits with that batch.
    """
    parts = row_parts(make_mesh(config.mesh, describe_devices(target))) * config.optimizer.accumulation

    def batches(policy: str) -> Iterator[Plan]:
        return largest_count(lambda rows: plan_of(_changed(config, rows * parts, policy)))

    best: Plan | None = None
    for policy in (LEAST_MEMORY, "offload"):
        for plan in batches(policy):
            yield plan
            best = plan if plan.compiled.memory.fits else best
        if best is not None:
            break
    if best is None:
        return
    for policy in CHEAPEST_FIRST[: CHEAPEST_FIRST.index(best.config.model.decoder.remat)]:
        plan = plan_of(_changed(config, best.config.data.rows, policy))
        yield plan
        if plan.compiled.memory.fits:
            return
    yield best


def largest_count(plan_of: Callable[[int], AnyPlan]) -> Iterator[AnyPlan]:
    """Compiles for one count of rows or pictures after the other; the last that fits is the largest.

    Counts are doubled while they fit, then what lies between is halved.
    """
    fits, too_many = 0, None
    while too_many is None or too_many - fits > 1:
        count = max(2 * fits, 1) if too_many is None else (fits + too_many) // 2
        plan = plan_of(count)
        yield plan
        if plan.compiled.memory.fits:
            fits = count
        else:
            too_many = count


def remedies(plan: Plan) -> list[str]:
    """What to change so that a plan that does not fit may fit: what costs least first, with what it frees."""
    config, state = plan.config, plan.state_bytes
    optimizer, data = config.optimizer, config.data

    def frees(part: str, share: float = 1.0) -> str:
        return f"frees {state[part] * share / GIB:.2f} GiB"

    steps = (
        _cut_copies(plan, sum(state.values())),
        (
            config.model.decoder.remat not in ("full", "offload"),
            "config.model.decoder.remat=full: the backward pass computes each layer again",
        ),
        (
            optimizer.ema_decay > 0 and optimizer.ema_memory == "device",
            f"config.optimizer.ema_memory=host: averages wait in the hosts' memory ({frees('EMA')})",
        ),
        (
            optimizer.moment_dtype == "float32",
            f"config.optimizer.moment_dtype=bfloat16: Adam's moments at half the size ({frees('optimizer', 0.5)})",
        ),
        (
            config.frozen_dtype == "float32",
            f"config.frozen_dtype=bfloat16: as the published weights are ({frees('frozen parameters', 0.5)})",
        ),
        (
            plan.rows_per_part > 1,
            f"config.data.rows={data.rows // 2}: half the batch (config.optimizer.accumulation=2 with the same rows "
            "costs the memory of one more gradient)",
        ),
        (
            plan.rows_per_part == 1 and _can_share(plan),
            f"config.mesh.sequence={2 * config.mesh.sequence} with config.data.rows={max(data.rows // 2, 1)}: twice as "
            f"many chips share a row's tokens (frees about {plan.saved_activations / 2 / GIB:.2f} GiB of saved "
            "activations); config.mesh.tensor=2 instead cuts heads and the inner features of MLPs",
        ),
        (
            config.model.decoder.remat == "full",
            "config.model.decoder.remat=offload: layer inputs wait in the hosts' memory "
            f"(frees {plan.saved_activations / GIB:.2f} GiB)",
        ),
        (
            optimizer.ema_decay > 0,
            "config.optimizer.ema_decay=0: no averages",
        ),
        (
            config.model.decoder.adapter_rank == 0,
            "low-rank adapters instead of the generation expert (configs/tpu/v5e_4.py): nearly no optimizer, averages "
            "and gradients",
        ),
        (True, LARGER),
    )
    return _numbered(plan, steps)


def sampler_remedies(plan: SamplerPlan) -> list[str]:
    """As `remedies`, for a sampler."""
    sequence = plan.config.mesh.sequence
    steps = (
        _cut_copies(plan, plan.parameter_bytes),
        (plan.images_per_part > 1, f"--sample={plan.images_per_part // 2}: half the pictures at a time"),
        (
            plan.images_per_part == 1 and _can_share(plan),
            f"config.mesh.sequence={2 * sequence}: twice as many chips share a picture's tokens",
        ),
        (True, LARGER),
    )
    return _numbered(plan, steps)


def _numbered(plan: Plan | SamplerPlan, steps: Sequence[tuple[bool, str]]) -> list[str]:
    missing = (plan.compiled.memory.peak - plan.target.chip.hbm_bytes) / GIB
    advice = [text for applies, text in steps if applies]
    return [f"{missing:.2f} GiB too much. In order of cost:", *(f"  {i}. {text}" for i, text in enumerate(advice, 1))]


def _cut_copies(plan: Plan | SamplerPlan, state_bytes: int) -> tuple[bool, str]:
    copies = _copies_in_a_slice(plan)
    return (
        copies > 1,
        f"config.mesh.data=1 and config.mesh.fsdp=-1: each of the {copies} copies of the state in a slice is cut over "
        f"the chips that have one (frees {state_bytes * (1 - 1 / copies) / GIB:.2f} GiB)",
    )


def _can_share(plan: Plan | SamplerPlan) -> bool:
    """Whether a slice has chips that could take a part of a row's tokens."""
    return plan.target.chips // plan.target.slices > plan.config.mesh.sequence > 0


def _copies_in_a_slice(plan: Plan | SamplerPlan) -> int:
    """How many chips of a slice hold the same part of the state: the size of the data axis inside a slice."""
    dcn = plan.config.mesh.dcn
    across = dcn.data if dcn.data > 0 else plan.target.slices // (dcn.fsdp * dcn.tensor * dcn.sequence)
    return plan.mesh_axes["data"] // max(across, 1)


def _changed(config: RunConfig, rows: int, remat: str) -> RunConfig:
    decoder = dataclasses.replace(config.model.decoder, remat=remat)
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, decoder=decoder),
        data=dataclasses.replace(config.data, rows=rows, virtual_shards=rows),
    )
