"""Reports of estimates: a table, or one JSON object."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import rich.table

from uno_jax.planning.chips import GIB, Slice
from uno_jax.planning.collectives import bytes_by_kind
from uno_jax.planning.estimate import Compiled, Estimate, run_hours
from uno_jax.planning.executed import Executed
from uno_jax.planning.memory import Memory
from uno_jax.planning.model_flops import encoder_share
from uno_jax.planning.roofline import Roofline
from uno_jax.planning.sampler import SamplerEstimate
from uno_jax.run.config import RunConfig, run_layout


@runtime_checkable
class ProgramEstimate(Protocol):
    """The common part of the estimates of a train step and of a sampler."""

    @property
    def config(self) -> RunConfig: ...
    @property
    def target(self) -> Slice: ...
    @property
    def mesh_axes(self) -> Mapping[str, int]: ...
    @property
    def images(self) -> int: ...
    @property
    def tokens(self) -> int: ...
    @property
    def executed(self) -> Executed: ...
    @property
    def compiled(self) -> Compiled: ...
    @property
    def memory(self) -> Memory: ...
    @property
    def bound(self) -> Roofline | None: ...


def estimate_json(estimate: Estimate, fraction: float) -> dict[str, Any]:
    """Returns everything in the estimate as a JSON object.

    Names end in `_gib` for sizes in GiB. Speeds and hours are at `fraction` of the roofline, unless named `roofline`.
    """
    own = {
        "program": "train step",
        "task": estimate.task,
        "widened_rows": {f"config.data.{field}": tokens for field, tokens in estimate.widened.items()},
        "precomputed": _precomputed(estimate.config),
        "rows_per_step": estimate.config.data.rows,
        "images_per_step": estimate.images,
        "tokens_per_step": estimate.tokens,
        "remat": estimate.config.model.decoder.remat,
        "ema": estimate.config.optimizer.ema_decay > 0,
        "moment_dtype": estimate.config.optimizer.moment_dtype,
        "hbm_state_gib": {part: _gib(size) for part, size in estimate.state_bytes.items()},
        "gradient_probe_gib": None if estimate.probe is None else _gib(estimate.probe.peak),
        "saved_activations_gib": _gib(estimate.saved_activations),
        "model_flops_by_part": dict(estimate.needed),
        "encoder_share": encoder_share(estimate.needed),
        "attention_blocks_computed": estimate.visited,
        "steps": estimate.config.steps,
        "hours": None if estimate.bound is None else run_hours(estimate, fraction),
    }
    return own | _shared_json(estimate, sum(estimate.needed.values()), fraction)


def sampler_json(estimate: SamplerEstimate, fraction: float) -> dict[str, Any]:
    """Returns everything in a sampler's estimate as a JSON object. One call generates all images."""
    own = {
        "program": "sampler",
        "timesteps": estimate.flow.timesteps,
        "ema": False,
        "images_per_call": estimate.images,
        "tokens_per_call": estimate.tokens,
        "hbm_parameters_gib": _gib(estimate.parameter_bytes),
    }
    return own | _shared_json(estimate, estimate.needed, fraction)


def _shared_json(estimate: ProgramEstimate, needed: float, fraction: float) -> dict[str, Any]:
    memory, bound = estimate.memory, estimate.bound
    seconds = None if bound is None else bound.seconds / fraction
    return {
        "topology": estimate.target.name,
        "chips": estimate.target.chips,
        "slices": estimate.target.slices,
        "mesh": dict(estimate.mesh_axes),
        "images_per_chip": estimate.images / estimate.target.chips,
        "fits": memory.fits,
        "hbm_peak_gib": _gib(memory.peak),
        "hbm_capacity_gib": _gib(estimate.target.chip.hbm_bytes),
        "hbm_arguments_gib": _gib(memory.arguments),
        "hbm_temporaries_gib": _gib(memory.temporaries),
        "hbm_program_gib": _gib(memory.program),
        "hbm_autoencoder_gib": _gib(memory.autoencoder),
        "host_memory_per_chip_gib": _gib(memory.host),
        "model_flops": needed,
        "executed_flops": estimate.executed.total,
        "executed_flops_by_source": dict(estimate.executed.by_source),
        "flops_ratio": estimate.executed.total / needed,
        "collective_bytes_per_chip": dict(estimate.compiled.collective_bytes),
        "collective_bytes_by_kind": bytes_by_kind(estimate.compiled.collectives),
        "hbm_bytes_per_chip": estimate.compiled.hbm_bytes,
        "roofline_seconds": None if bound is None else bound.seconds,
        "roofline_seconds_by_resource": None if bound is None else vars(bound),
        "bound_by": None if bound is None else bound.bound_by,
        "roofline_fraction": fraction,
        "images_per_second": None if seconds is None else estimate.images / seconds,
        "tokens_per_second": None if seconds is None else estimate.tokens / seconds,
        "compile_seconds": round(estimate.compiled.seconds, 1),
        "compile_host_memory_gib": _gib(estimate.compiled.host_memory),
        "compiler_message": memory.message.splitlines()[0] if memory.message else "",
    }


def estimate_table(estimate: Estimate, fraction: float) -> rich.table.Table:
    """Returns the estimate as a table. Speeds and hours are at `fraction` of the roofline."""
    memory, needed = estimate.memory, sum(estimate.needed.values())
    images = f"{estimate.images / estimate.target.chips:g} images per chip"
    table = _table(f"{estimate.target.name}, {estimate.target.chips} chips, {images}, {estimate.task}", estimate)
    table.add_row(
        "rows per step", str(estimate.config.data.rows), f"rematerialisation: {estimate.config.model.decoder.remat}"
    )
    if estimate.widened:
        lengths = ", ".join(f"config.data.{field}={tokens}" for field, tokens in estimate.widened.items())
        table.add_row("lengthened rows", "", f"an edit needs {lengths}")
    if given := _precomputed(estimate.config):
        table.add_row("precomputed", "", " and ".join(given))
    of_step = memory is not estimate.probe
    _add_memory(table, estimate, "" if of_step else ", of the gradient probe")
    for part, size in estimate.state_bytes.items():
        if size and (of_step or part != "gradients"):
            note = "part of the temporaries" if part == "gradients" else ""
            table.add_row(f"  {part}", f"{size / GIB:.2f} GiB", note)
    if memory.fits:
        table.add_row("  compiler's temporaries", f"{memory.temporaries / GIB:.2f} GiB", "at the peak")
    if of_step:
        saved = f"{estimate.saved_activations / GIB:.2f} GiB"
        table.add_row("    saved activations", saved, "approximate, part of the temporaries")
    if memory.fits:
        table.add_row("  program", f"{memory.program / GIB:.2f} GiB", "")
    _add_autoencoder(table, memory)
    if memory.host:
        table.add_row("host memory per chip", f"{memory.host / GIB:.2f} GiB", "")
    table.add_section()
    table.add_row("model FLOPs per step", f"{needed / 1e12:,.0f} T", _shares(estimate.needed))
    run = f", {run_hours(estimate, fraction):.1f} h for {estimate.config.steps:,} steps"
    _add_speed(table, estimate, needed, fraction, "per step", run)
    return table


def sampler_table(estimate: SamplerEstimate, fraction: float) -> rich.table.Table:
    """Returns a sampler's estimate as a table. Speeds are at `fraction` of the roofline."""
    steps = f"{estimate.images} images in {estimate.flow.timesteps - 1} guided steps"
    table = _table(f"sampler on {estimate.target.name}, {estimate.target.chips} chips, {steps}", estimate)
    _add_memory(table, estimate)
    table.add_row("  parameters", f"{estimate.parameter_bytes / GIB:.2f} GiB", "")
    if estimate.memory.fits:
        table.add_row("  compiler's temporaries", f"{estimate.memory.temporaries / GIB:.2f} GiB", "at the peak")
    _add_autoencoder(table, estimate.memory)
    table.add_section()
    table.add_row("model FLOPs", f"{estimate.needed / 1e12:,.0f} T", "")
    _add_speed(table, estimate, estimate.needed, fraction, "for all images", "")
    return table


def _table(title: str, estimate: ProgramEstimate) -> rich.table.Table:
    title = f"{title}: {'fits' if estimate.memory.fits else 'DOES NOT FIT'}"
    table = rich.table.Table(title=title, title_justify="left", show_edge=False, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    return table


def _add_memory(table: rich.table.Table, estimate: ProgramEstimate, suffix: str = "") -> None:
    peak, capacity = estimate.memory.peak / GIB, estimate.target.chip.hbm_bytes / GIB
    table.add_row("peak memory per chip", f"{peak:.2f} GiB", f"of {capacity:.2f}{suffix}", style="bold")


def _add_autoencoder(table: rich.table.Table, memory: Memory) -> None:
    if memory.autoencoder:
        table.add_row("  autoencoder", f"{memory.autoencoder / GIB:.2f} GiB", "not an argument of the program")


def _add_speed(
    table: rich.table.Table, estimate: ProgramEstimate, needed: float, fraction: float, unit: str, run: str
) -> None:
    """Adds computation, traffic and time. `unit` says what the numbers refer to."""
    executed = estimate.executed
    ratio = f"{executed.total / needed:.3f} x model; {_shares(executed.by_source)}"
    table.add_row("executed FLOPs", f"{executed.total / 1e12:,.0f} T", ratio)
    table.add_section()
    if estimate.bound is not None:
        for name, size in estimate.compiled.collective_bytes.items():
            table.add_row(f"collectives over {name}", f"{size / 1e9:.2f} GB", f"received per chip, {unit}")
        table.add_row("memory traffic per chip", f"{estimate.compiled.hbm_bytes / 1e9:,.0f} GB", f"approximate, {unit}")
        times = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in vars(estimate.bound).items() if seconds)
        table.add_row(
            f"roofline time {unit}", f"{estimate.bound.seconds:.2f} s", f"bound by {estimate.bound.bound_by}: {times}"
        )
        seconds = estimate.bound.seconds / fraction
        table.add_row(
            f"at {fraction:.0%} of the roofline",
            f"{estimate.images / seconds:.2f} images/s",
            f"{estimate.tokens / seconds:,.0f} tokens/s{run}",
        )
    host = f"{estimate.compiled.host_memory / GIB:.1f} GiB of host memory"
    table.add_row("compiled in", f"{estimate.compiled.seconds:.0f} s", host)


def _precomputed(config: RunConfig) -> list[str]:
    """Returns what the run reads in place of pixels."""
    layout = run_layout(config)
    return ["moments"] * (layout.moments > 0) + ["vision features"] * (layout.features > 0)


def _gib(size: float) -> float:
    return round(size / GIB, 3)


def _shares(parts: Any) -> str:
    total = math.fsum(parts.values())
    largest = sorted(parts.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {value / total:.1%}" for name, value in largest if value / total > 0.005)
