"""A plan for people, and as one JSON object."""

from __future__ import annotations

import math
import resource
from typing import Any

import rich.console
import rich.table

from uno_jax.planning.chips import GIB
from uno_jax.planning.collectives import bytes_by_kind
from uno_jax.planning.model_flops import encoder_share
from uno_jax.planning.plan import Plan, images_per_chip, run_hours


def plan_json(plan: Plan, fraction: float) -> dict[str, Any]:
    """All that is known of the plan; bytes in GiB where a name ends so, times at `fraction` of the roofline where they
    are not called roofline."""
    memory, bound = plan.compiled.memory, plan.bound
    needed = sum(plan.needed.values())
    seconds = None if bound is None else bound.seconds / fraction
    return {
        "program": "train step",
        "topology": plan.target.name,
        "chips": plan.target.chips,
        "slices": plan.target.slices,
        "mesh": dict(plan.mesh_axes),
        "task": plan.task,
        "widened_rows": {f"config.data.{field}": tokens for field, tokens in plan.widened.items()},
        "images_per_chip": images_per_chip(plan),
        "rows_per_step": plan.config.data.rows,
        "images_per_step": plan.images,
        "tokens_per_step": plan.tokens,
        "remat": plan.config.model.decoder.remat,
        "ema": plan.config.optimizer.ema_decay > 0,
        "moment_dtype": plan.config.optimizer.moment_dtype,
        "fits": memory.fits,
        "hbm_peak_gib": _gib(memory.peak),
        "hbm_capacity_gib": _gib(plan.target.chip.hbm_bytes),
        "hbm_state_gib": {part: _gib(size) for part, size in plan.state_bytes.items()},
        "hbm_arguments_gib": _gib(memory.arguments),
        "hbm_temporaries_gib": _gib(memory.temporaries),
        "hbm_program_gib": _gib(memory.program),
        "saved_activations_gib": _gib(plan.saved_activations),
        "host_memory_per_chip_gib": _gib(memory.host),
        "model_flops": needed,
        "model_flops_by_part": dict(plan.needed),
        "encoder_share": encoder_share(plan.needed),
        "executed_flops": plan.executed.total,
        "executed_flops_by_source": dict(plan.executed.by_source),
        "attention_blocks_computed": plan.visited,
        "flops_ratio": plan.executed.total / needed,
        "collective_bytes_per_chip": dict(plan.compiled.collective_bytes),
        "collective_bytes_by_kind": bytes_by_kind(plan.compiled.collectives),
        "hbm_bytes_per_chip": plan.compiled.hbm_bytes,
        "roofline_seconds": None if bound is None else bound.seconds,
        "roofline_seconds_by_resource": None if bound is None else vars(bound),
        "bound_by": None if bound is None else bound.bound_by,
        "roofline_fraction": fraction,
        "images_per_second": None if seconds is None else plan.images / seconds,
        "tokens_per_second": None if seconds is None else plan.tokens / seconds,
        "steps": plan.config.steps,
        "hours": None if bound is None else run_hours(plan, fraction),
        "compile_seconds": round(plan.compiled.seconds, 1),
        "compile_host_memory_gib": _gib(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024),
        "compiler_message": memory.message.splitlines()[0] if memory.message else "",
    }


def plan_table(plan: Plan, fraction: float) -> rich.table.Table:
    """The same for people."""
    memory, needed = plan.compiled.memory, sum(plan.needed.values())
    capacity = plan.target.chip.hbm_bytes
    verdict = f"{plan.task}: {'fits' if memory.fits else 'DOES NOT FIT'}"
    title = f"{plan.target.name}, {plan.target.chips} chips, {images_per_chip(plan):g} images a chip, {verdict}"
    table = rich.table.Table(title=title, title_justify="left", show_edge=False, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    if plan.widened:
        lengths = ", ".join(f"config.data.{field}={tokens}" for field, tokens in plan.widened.items())
        table.add_row("rows made longer", "", f"an edit takes {lengths}")
    table.add_row("memory peak of a chip", f"{memory.peak / GIB:.2f} GiB", f"of {capacity / GIB:.2f}", style="bold")
    for part, size in plan.state_bytes.items():
        if size:
            note = "made by the step, among the temporaries" if part == "gradients" else ""
            table.add_row(f"  {part}", f"{size / GIB:.2f} GiB", note)
    if memory.fits:
        table.add_row("  compiler's temporaries", f"{memory.temporaries / GIB:.2f} GiB", "at the peak")
    table.add_row("    saved activations", f"{plan.saved_activations / GIB:.2f} GiB", "estimate, among the temporaries")
    if memory.fits:
        table.add_row("  program", f"{memory.program / GIB:.2f} GiB", "")
    if memory.host:
        table.add_row("host memory for a chip", f"{memory.host / GIB:.2f} GiB", "")
    table.add_section()
    table.add_row("model FLOPs a step", f"{needed / 1e12:,.0f} T", _shares(plan.needed))
    table.add_row(
        "executed FLOPs",
        f"{plan.executed.total / 1e12:,.0f} T",
        f"{plan.executed.total / needed:.3f} x model; {_shares(plan.executed.by_source)}",
    )
    table.add_section()
    if plan.bound is not None:
        for name, size in plan.compiled.collective_bytes.items():
            table.add_row(f"collectives over {name}", f"{size / 1e9:.2f} GB", "received by a chip in a step")
        table.add_row("memory traffic of a chip", f"{plan.compiled.hbm_bytes / 1e9:,.0f} GB", "an estimate")
        times = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in vars(plan.bound).items() if seconds)
        table.add_row(
            "roofline time of a step", f"{plan.bound.seconds:.2f} s", f"bound by {plan.bound.bound_by}: {times}"
        )
        seconds = plan.bound.seconds / fraction
        table.add_row(
            f"at {fraction:.0%} of the roofline",
            f"{plan.images / seconds:.2f} images/s",
            f"{plan.tokens / seconds:,.0f} tokens/s, {run_hours(plan, fraction):.1f} h for {plan.config.steps:,} steps",
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    table.add_row("compiled in", f"{plan.compiled.seconds:.0f} s", f"{peak / GIB:.1f} GiB of this host's memory")
    return table


def _gib(size: float) -> float:
    return round(size / GIB, 3)


def _shares(parts: Any) -> str:
    total = math.fsum(parts.values())
    largest = sorted(parts.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {value / total:.1%}" for name, value in largest if value / total > 0.005)
