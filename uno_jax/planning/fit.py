"""Searches for the largest batch and the cheapest rematerialisation that fit, and suggests remedies if none does."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar, get_args

from jax.sharding import Mesh

from uno_jax.config import ConfigError
from uno_jax.models.config import Remat
from uno_jax.objectives.losses import SUPERVISION
from uno_jax.parallel.mesh import row_parts
from uno_jax.planning.chips import GIB
from uno_jax.planning.estimate import Estimate
from uno_jax.planning.sampler import SamplerEstimate
from uno_jax.run.config import RunConfig

AnyEstimate = TypeVar("AnyEstimate", Estimate, SamplerEstimate)

CHEAPEST_FIRST: tuple[Remat, ...] = get_args(Remat)
"""Rematerialisation policies, by increasing recomputation and decreasing memory."""
LARGER = "a larger slice, or chips with more memory (--topology)"
LEAST_MEMORY: Remat = "full"
"""The policy for the search of the batch. `offload`, which transfers activations at every layer, is the fallback."""


def largest_fit(config: RunConfig, mesh: Mesh, estimate_of: Callable[[RunConfig], Estimate]) -> Iterator[Estimate]:
    """Compiles candidates for a mesh and yields their estimates. The last one that fits is the result.

    Searches for the largest batch first, with the policy that saves least: the number of rows per data-parallel shard
    is doubled while it fits, then bisected. Then tries the policies with this batch, cheapest first, until one fits.
    """
    parts = row_parts(mesh) * config.optimizer.accumulation

    def batches(policy: Remat) -> Iterator[Estimate]:
        return largest_count(lambda rows: estimate_of(_changed(config, rows * parts, policy)))

    best: Estimate | None = None
    least_memory_first: tuple[Remat, ...] = (LEAST_MEMORY, "offload")
    for policy in least_memory_first:
        for estimate in batches(policy):
            yield estimate
            best = estimate if estimate.memory.fits else best
        if best is not None:
            break
    if best is None:
        return
    for policy in CHEAPEST_FIRST[: CHEAPEST_FIRST.index(best.config.model.decoder.remat)]:
        estimate = estimate_of(_changed(config, best.config.data.rows, policy))
        yield estimate
        if estimate.memory.fits:
            return
    yield best


def largest_count(estimate_of: Callable[[int], AnyEstimate]) -> Iterator[AnyEstimate]:
    """Compiles for various numbers of rows or images and yields the estimates. The last one that fits is the largest.

    The number is doubled while it fits, then bisected. A number for which `estimate_of` raises an error is too large.

    Raises:
      ConfigError: `estimate_of` raises it for a single row or image.
    """
    fits, too_many = 0, None
    while too_many is None or too_many - fits > 1:
        count = max(2 * fits, 1) if too_many is None else (fits + too_many) // 2
        try:
            estimate = estimate_of(count)
        except ConfigError:
            if not fits:
                raise
            too_many = count
            continue
        yield estimate
        if estimate.memory.fits:
            fits = count
        else:
            too_many = count


def remedies(estimate: Estimate) -> list[str]:
    """Lists changes that may make a run fit, cheapest first, with the memory that each frees."""
    config, state = estimate.config, estimate.state_bytes
    optimizer, fewer_rows, half_rows = config.optimizer, _fewer_rows(estimate), max(config.data.rows // 2, 1)

    def frees(part: str, share: float = 1.0) -> str:
        return f"frees {state[part] * share / GIB:.2f} GiB"

    steps = (
        (estimate.compiled.memory.fits, f"{_no_probe(config)}: no gradient probe"),
        _shard_replicas(estimate, sum(state.values())),
        (
            config.model.decoder.remat not in ("full", "offload"),
            "config.model.decoder.remat=full: the backward pass recomputes each layer",
        ),
        (
            optimizer.ema_decay > 0 and optimizer.ema_memory == "device",
            f"config.optimizer.ema_memory=host: EMA weights in host memory ({frees('EMA')})",
        ),
        (
            optimizer.moment_dtype == "float32",
            f"config.optimizer.moment_dtype=bfloat16: Adam moments at half the size ({frees('optimizer', 0.5)})",
        ),
        (
            config.frozen_dtype == "float32",
            f"config.frozen_dtype=bfloat16: the dtype of the published weights ({frees('frozen parameters', 0.5)})",
        ),
        (
            fewer_rows > 0,
            f"{_rows(fewer_rows)}: fewer rows per step{_instead_of_fewer(estimate)}",
        ),
        (
            fewer_rows == 0 and _can_share(estimate),
            f"{_shared_rows(estimate)} with {_rows(half_rows)}: twice as many chips share a row's tokens (frees about "
            f"{estimate.saved_activations / 2 / GIB:.2f} GiB of saved activations). config.mesh.tensor=2 instead "
            "shards heads and MLP features",
        ),
        (
            config.model.decoder.remat == "full",
            "config.model.decoder.remat=offload: layer inputs in host memory "
            f"(frees {estimate.saved_activations / GIB:.2f} GiB)",
        ),
        (
            optimizer.ema_decay > 0,
            "config.optimizer.ema_decay=0: no EMA",
        ),
        (
            state["starting model"] > 0,
            f"config.objective.anchor_weight=0: no copy of the starting model ({frees('starting model')})",
        ),
        (
            config.model.decoder.adapter_rank == 0,
            "low-rank adapters instead of the generation expert (configs/tpu/v5e_4.py): hardly any optimizer state, "
            "EMA weights and gradients",
        ),
        (True, LARGER),
    )
    return _numbered(estimate, steps)


def _no_probe(config: RunConfig) -> str:
    balanced = any(loss.balance_in(config.objective) for loss in SUPERVISION)
    names = ["every", *(loss.name for loss in SUPERVISION if balanced)]
    return " and ".join(f"config.objective.balance.{name}=0" for name in names)


def sampler_remedies(estimate: SamplerEstimate) -> list[str]:
    """Lists changes that may make a sampler fit, cheapest first."""
    steps = (
        _shard_replicas(estimate, estimate.parameter_bytes),
        (estimate.images_per_part > 1, f"--sample={estimate.images_per_part // 2}: half the images at a time"),
        (
            estimate.images_per_part == 1 and _can_share(estimate),
            f"{_shared_rows(estimate)}: twice as many chips share an image's tokens",
        ),
        (True, LARGER),
    )
    return _numbered(estimate, steps)


def _numbered(estimate: Estimate | SamplerEstimate, steps: Sequence[tuple[bool, str]]) -> list[str]:
    missing = (estimate.memory.peak - estimate.target.chip.hbm_bytes) / GIB
    advice = [text for applies, text in steps if applies]
    return [
        f"{missing:.2f} GiB over the limit. Remedies, cheapest first:",
        *(f"  {i}. {text}" for i, text in enumerate(advice, 1)),
    ]


def _shard_replicas(estimate: Estimate | SamplerEstimate, state_bytes: int) -> tuple[bool, str]:
    replicas = _replicas_in_a_slice(estimate)
    return (
        replicas > 1,
        f"config.mesh.data=1 and config.mesh.fsdp=-1: shard the state over all chips of a slice instead of keeping "
        f"{replicas} replicas (frees {state_bytes * (1 - 1 / replicas) / GIB:.2f} GiB)",
    )


def _fewer_rows(estimate: Estimate) -> int:
    """About half the rows of a batch, divisible by mesh and microbatches; 0 if a chip has one row at a time."""
    at_a_time = estimate.rows_per_part // estimate.config.optimizer.accumulation
    return estimate.config.data.rows // at_a_time * (at_a_time // 2)


def _instead_of_fewer(estimate: Estimate) -> str:
    more = 2 * estimate.config.optimizer.accumulation
    if estimate.rows_per_part % more:
        return ""
    return f" (or config.optimizer.accumulation={more} with the same rows, which takes the memory of one more gradient)"


def _rows(count: int) -> str:
    return f"config.data.rows={count} and config.data.virtual_shards={count}"


def _halved_axis(estimate: Estimate | SamplerEstimate) -> str:
    """The mesh axis that can be halved within a slice in favour of `sequence`, or an empty string."""
    mesh = estimate.config.mesh
    if mesh.sequence < 1:
        return ""
    in_a_slice = {"data": _replicas_in_a_slice(estimate), "fsdp": estimate.mesh_axes["fsdp"] // max(mesh.dcn.fsdp, 1)}
    return next((axis for axis in ("fsdp", "data") if in_a_slice[axis] % 2 == 0), "")


def _can_share(estimate: Estimate | SamplerEstimate) -> bool:
    """Whether more chips of a slice can share a row's tokens."""
    return bool(_halved_axis(estimate))


def _shared_rows(estimate: Estimate | SamplerEstimate) -> str:
    """Config overrides for twice as many chips per row."""
    mesh, axis = estimate.config.mesh, _halved_axis(estimate)
    sequence, size = f"config.mesh.sequence={2 * mesh.sequence}", getattr(mesh, axis, -1)
    return sequence if size == -1 else f"{sequence} and config.mesh.{axis}={size // 2}"


def _replicas_in_a_slice(estimate: Estimate | SamplerEstimate) -> int:
    """Number of replicas of the state in a slice: the size of the data axis within a slice."""
    dcn = estimate.config.mesh.dcn
    across = dcn.data if dcn.data > 0 else estimate.target.slices // (dcn.fsdp * dcn.tensor * dcn.sequence)
    return estimate.mesh_axes["data"] // max(across, 1)


def _changed(config: RunConfig, rows: int, remat: Remat) -> RunConfig:
    decoder = dataclasses.replace(config.model.decoder, remat=remat)
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, decoder=decoder),
        data=dataclasses.replace(config.data, rows=rows, virtual_shards=rows),
    )
