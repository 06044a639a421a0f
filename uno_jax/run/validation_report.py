"""What `prepare_data validate` prints and writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from rich.table import Table

from uno_jax.batch import REGIONS
from uno_jax.data.buffers import NEARLY_ALL, Buffers
from uno_jax.data.mixture import part_configs
from uno_jax.data.proposal import FULL, changed_fields, real_latents, tokens_per_sample
from uno_jax.data.samples import SkippedCount, outcomes
from uno_jax.data.survey import EXAMPLES
from uno_jax.run.config import RunConfig
from uno_jax.run.validation import Validation

_NAMED = 1  # examples in the table


def tables(found: Validation) -> list[Table]:
    """Returns the tables of records, of regions and, if it was asked for, of the proposal."""
    shown = [_records_table(found), _regions_table(found.config, found.survey.buffers)]
    return shown if found.proposed is None else [*shown, _proposal_table(found)]


def sentences(found: Validation) -> Iterator[str]:
    """Yields what else is to be said, problems at the end."""
    buffers, data = found.survey.buffers, found.config.data
    left_out = SkippedCount(buffers.skipped)
    causes = ", ".join(f"{cause} {count:,}" for cause, count in left_out.causes.most_common())
    fit = f"{1 - buffers.share_left_out:.1%} of {buffers.samples:,} samples fit a row"
    yield f"{fit} ({causes} left out)." if causes else f"{fit}."
    if buffers.kept:
        yield f"{len(buffers.kept):,} samples have a caption that is too long: {outcomes(buffers.outcomes)}."
    if left_out.over or buffers.kept:
        yield from (f"  {line}" for line in _enlargements(buffers, found.config))
    if buffers.packing is not None:
        yield f"Rows: {found.limit}."
        for name, steps in found.steps_per_epoch.items():
            of = "" if name == "all" else f" of {name}"
            yield (
                f"An epoch{of} takes {steps:,.1f} steps of {data.rows} rows; {found.config.steps:,} steps "
                f"(config.steps) are {found.config.steps / steps:,.2f} epochs."
            )
    if found.proposed is not None:
        changes = changed_fields(data, found.proposed.data)
        flags = " ".join(f"--config.data.{name}={value}" for name, value in changes.items())
        yield f"For the proposed lengths: {flags}" if flags else "The lengths of the regions are good."
        yield from _full_rows(found, found.proposed)
    for problem in found.problems:
        yield f"breaks a run: {problem}"
    if not found.problems:
        yield "Nothing here would break a run."


def as_json(found: Validation) -> dict[str, Any]:
    """Returns everything that was found, as JSON values."""
    survey, data = found.survey, found.config.data
    parts = part_configs(data)
    return {
        "directories": [part.directory for part in parts.values()],
        "split": data.split,
        "methods": [part.method for part in parts.values()],
        "records": survey.records,
        "unread": [skip._asdict() for skip in survey.unread[:EXAMPLES]],
        "pictures": {"count": len(survey.widths), "ranges": _ranges(found)},
        "findings": {each.name: {"count": each.count, "examples": each.examples} for each in survey.findings},
        "buffers": _buffers_json(found.config, survey.buffers),
        "steps_per_epoch": found.steps_per_epoch,
        "proposed": None
        if found.proposed is None or found.proposed_buffers is None
        else _buffers_json(found.proposed, found.proposed_buffers),
        "latent_tokens_of_full_rows": None if found.longer is None else found.longer.latent_tokens,
        "problems": found.problems,
    }


def _records_table(found: Validation) -> Table:
    survey, data = found.survey, found.config.data
    parts = part_configs(data).values()
    methods = " and ".join(dict.fromkeys(part.method for part in parts))
    where = ", ".join(part.directory for part in parts)
    table = _table(f"{where}, split {data.split}, as method {methods} reads it")
    table.add_column()
    table.add_column(justify="right")
    table.add_column(overflow="fold")
    for task, count in survey.records.items():
        table.add_row(f"records of {task}", f"{count:,}", "")
    named = ", ".join(skip.id for skip in survey.unread[:_NAMED])
    table.add_row("records that cannot be read", f"{len(survey.unread):,}", named, style=_style(len(survey.unread)))
    ranges = "; ".join(f"{name} {low:g} to {high:g}" for name, (low, high) in _ranges(found).items())
    table.add_row("pictures", f"{len(survey.widths):,}", ranges)
    for finding in survey.findings:
        table.add_row(finding.name, f"{finding.count:,}", ", ".join(finding.examples[:_NAMED]))
    return table


def _regions_table(config: RunConfig, buffers: Buffers) -> Table:
    table = _table("tokens of a sample, and of a row")
    for name in ("region", "median", f"{NEARLY_ALL:.0%}", "longest", "row", "too long", "padding"):
        table.add_column(name, justify="left" if name == "region" else "right")
    over = SkippedCount([*buffers.long, *buffers.kept]).over
    padding: Mapping[str, float] = {} if buffers.packing is None else buffers.packing.padding
    for region in REGIONS:
        needs = (buffers.needed(region, share) for share in (0.5, NEARLY_ALL, 1.0))
        share = f"{padding[region]:.1%}" if region in padding else ""
        row = (f"{config.data.capacities[region]:,}", f"{over[region]:,}", share)
        table.add_row(region, *(f"{tokens:,}" for tokens in needs), *row, style=_style(over[region]))
    return table


def _proposal_table(found: Validation) -> Table:
    assert found.proposed is not None, "a proposal was asked for"
    assert found.proposed_buffers is not None, "it was filled"
    table = _table("proposed lengths of the regions")
    for name in ("region", "row", "padding", "proposed", "padding "):
        table.add_column(name, justify="left" if name == "region" else "right")
    sides = ((found.config, found.survey.buffers), (found.proposed, found.proposed_buffers))
    for region in REGIONS:
        cells = []
        for config, buffers in sides:
            padding: Mapping[str, float] = {} if buffers.packing is None else buffers.packing.padding
            share = f"{padding[region]:.1%}" if region in padding else ""
            cells += [f"{config.data.capacities[region]:,}", share]
        table.add_row(region, *cells)
    sums = [cell for config, _ in sides for cell in (f"{sum(config.data.capacities.values()):,}", "")]
    table.add_row("all", *sums, style="bold")
    per_row = [
        cell
        for _, buffers in sides
        for cell in (f"{buffers.packing.samples_per_row:,.1f}" if buffers.packing else "0", "")
    ]
    table.add_row("samples per row", *per_row)
    costs = [cell for config, buffers in sides for cell in (f"{tokens_per_sample(buffers, config.data):,.0f}", "")]
    table.add_row("tokens per sample", *costs)
    left_out = [cell for _, buffers in sides for cell in (f"{buffers.share_left_out:.1%}", "")]
    table.add_row("samples left out", *left_out)
    return table


def _enlargements(buffers: Buffers, config: RunConfig) -> Iterator[str]:
    over = SkippedCount([*buffers.long, *buffers.kept]).over
    for region, count in over.most_common():
        nearly, longest = buffers.needed(region, NEARLY_ALL), buffers.needed(region)
        room = config.data.capacities[region]
        some = f"{nearly:,} for {NEARLY_ALL:.0%} of the samples, " if room < nearly < longest else ""
        yield f"{count:,} need more than data.{region}_tokens = {room:,}: increase it to {some}{longest:,} for all"


def _full_rows(found: Validation, proposed: RunConfig) -> Iterator[str]:
    """Yields how full of latents proposed rows are and, if they are not full, why, and what would fill them."""
    buffers, data = found.proposed_buffers, proposed.data
    if buffers is None or not (longest := buffers.needed("latent")):
        return
    share = real_latents(buffers)
    if share >= FULL:
        yield f"With them, {share:.1%} of the latent tokens of a row are real."
        return
    most, longer = data.max_samples_per_row, found.longer
    gaps = f"samples of up to {longest:,} latent tokens leave gaps in rows of {data.latent_tokens:,}"
    reason = f"data.max_samples_per_row is {most}" if most and longer is None else gaps
    remedy = ""
    if longer is not None:
        times = longer.latent_tokens // data.latent_tokens
        fields = {"latent_tokens": longer.latent_tokens}
        fields |= {} if data.rows % times else {"rows": data.rows // times, "virtual_shards": data.rows // times}
        flags = " ".join(f"--config.data.{name}={value}" for name, value in fields.items())
        remedy = f" Longer rows have more than {FULL:.0%}: give this command {flags}"
        remedy += ", with which a step has as many latent tokens." if "rows" in fields else "."
    yield f"With them, {share:.1%} of the latent tokens of a row are real, because {reason}.{remedy}"


def _buffers_json(config: RunConfig, buffers: Buffers) -> dict[str, Any]:
    left_out, packing = SkippedCount(buffers.skipped), buffers.packing
    over = SkippedCount([*buffers.long, *buffers.kept]).over
    padding: Mapping[str, float] = {} if packing is None else packing.padding
    regions = {
        region: {
            "row": config.data.capacities[region],
            "median": buffers.needed(region, 0.5),
            "nearly_all": buffers.needed(region, NEARLY_ALL),
            "longest": buffers.needed(region),
            "too_long": over[region],
            "padding": padding.get(region),
        }
        for region in REGIONS
    }
    return {
        "samples": buffers.samples,
        "share_left_out": buffers.share_left_out,
        "left_out": dict(left_out.causes),
        "kept": dict(buffers.outcomes),
        "kept_ids": [skip.id for skip in buffers.kept[:EXAMPLES]],
        "left_out_ids": [skip.id for skip in buffers.skipped[:EXAMPLES]],
        "regions": regions,
        "samples_per_row": None if packing is None else packing.samples_per_row,
        "fullest": None if packing is None else packing.fullest,
        "packing_bins": config.data.packing_bins,
    }


def _ranges(found: Validation) -> dict[str, tuple[float, float]]:
    """Returns minimum and maximum of the sides of pictures in pixels, and of their ratio."""
    widths, heights = found.survey.widths, found.survey.heights
    if not len(widths):
        return {}
    values = {"width": widths, "height": heights, "width / height": np.round(widths / heights, 2)}
    return {name: (value.min().item(), value.max().item()) for name, value in values.items()}


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", show_edge=False, pad_edge=False)


def _style(count: int) -> str | None:
    return "bold" if count else None
