"""Parts about the runs: tuning, gradients, held-out losses, speed."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

from uno_jax.objectives.losses import LOSSES
from uno_jax.study import figures
from uno_jax.study.config import BEFORE, Arm
from uno_jax.study.document import Block, Figure, Paragraph, Table
from uno_jax.study.parts.part import Part, names_of
from uno_jax.study.plan import Study
from uno_jax.study.progress import duration
from uno_jax.training.metrics import read_metrics


def tuning(study: Study, folder: Path) -> Part | None:
    """Makes the table of all grids: accuracy on the development prompts by changes and guidance scale."""
    config = study.config
    rows: list[list[str]] = []
    panels: dict[str, dict[str, figures.Line]] = {}
    numbers: dict[str, Any] = {}
    for name in study.tuned():
        points = study.grid_scores(name)
        done = {key: study.done.result(unit) for key, unit in points.items() if study.done.has(unit)}
        shares = {key: result["right"] / result["lines"] for key, result in done.items()}
        complete = len(done) == len(points)
        chosen = study.chosen(name) if complete else None
        grid = ((),) if name == BEFORE else study.arm(name).grid
        for point, changes in enumerate(grid):
            own = {scale: shares.get((point, scale)) for scale in config.tuning.scales}
            words = ", ".join(changes) or "as configured"
            picked = chosen is not None and (name == BEFORE or chosen.changes == changes)
            best = chosen.scale if chosen is not None and picked else None
            cells = [
                "" if share is None else f"{100 * share:.1f}{' chosen' if scale == best else ''}"
                for scale, share in own.items()
            ]
            label = f"g{point:02}"
            rows.append([name, label, words, *cells])
            known = {scale: 100 * share for scale, share in own.items() if share is not None}
            if known:
                panels.setdefault(name, {})[label] = figures.Line(list(known), list(known.values()))
            numbers.setdefault(name, {})[words] = {f"{scale:g}": share for scale, share in own.items()}
    if not panels:
        return None
    colour = figures.colours(list(dict.fromkeys(label for panel in panels.values() for label in panel)))
    drawn = figures.lines(panels, colour, "guidance scale", "development prompts drawn right (%)")
    figures.save(drawn, folder / "tuning.png")
    text = (
        f"Percent of {config.tuning.records:,} development prompts drawn right, by guidance scale. Every arm has the "
        "same number of points, and one run of each."
    )
    head = ["", "point", "changes", *(f"guidance {scale:g}" for scale in config.tuning.scales)]
    figure = Figure("figures/tuning.png", "accuracy of all grid points")
    return Part([Paragraph(text), Table(head, rows), figure], numbers)


def gradients(study: Study, folder: Path) -> Part | None:
    """Draws the gradient norms of the losses into the generation expert, and their cosines, through training."""
    blocks: list[Block] = []
    numbers: dict[str, Any] = {}
    for kind, label, log in (
        ("gradient_norm", "gradient norm into the generation expert", True),
        ("gradient_cosine", "cosine of two gradients", False),
    ):
        panels = {}
        for arm in study.config.arms:
            series = _series(study, arm, f"{kind}/")
            if len(series) > (1 if log else 0):  # the norm of flow matching alone shows nothing
                panels[arm.name] = {name.replace("_", " and "): line for name, line in series.items()}
                numbers.setdefault(kind, {})[arm.name] = {name: _by_step(line) for name, line in series.items()}
        if panels:
            names = list(dict.fromkeys(name for panel in panels.values() for name in panel))
            drawn = figures.lines(panels, figures.colours(names), "training step", label, log=log, markers=False)
            figures.save(drawn, folder / f"{kind}s.png")
            blocks.append(Figure(f"figures/{kind}s.png", f"{label} through training"))
    if not blocks:
        return None
    return Part([Paragraph("Measured by the probe of each run, mean over its runs."), *blocks], numbers)


def losses(study: Study, folder: Path) -> Part | None:
    """Draws the held-out losses of all arms through training."""
    panels: dict[str, dict[str, figures.Line]] = {}
    series = {arm.name: _series(study, arm, "held_out/") for arm in study.config.arms}
    for loss in LOSSES:
        panel = {name: of[loss.name] for name, of in series.items() if loss.name in of}
        if panel:
            panels[loss.label] = panel
    if not panels:
        return None
    colour = figures.colours(names_of(study.config), BEFORE)
    figures.save(figures.lines(panels, colour, "training step", "held-out loss"), folder / "losses.png")
    numbers = {label: {name: _by_step(line) for name, line in panel.items()} for label, panel in panels.items()}
    text = "Held-out losses, of the same records with the same draws for all arms, mean over their runs."
    return Part([Paragraph(text), Figure("figures/losses.png", "held-out losses through training")], numbers)


def runs(study: Study, folder: Path) -> Part | None:
    """Makes the table of the speed of the runs."""
    config = study.config
    kinds = {
        f"{BEFORE}, stage {stage}": [f"base/b{base}/stage{stage}" for base in range(config.base.count)]
        for stage in range(1, len(config.base.stages) + 1)
    }
    kinds |= {arm.name: [study.run_unit(arm, pair) for pair in study.pairs(arm)] for arm in config.arms}
    rows, numbers = [], {}
    for name, units in kinds.items():
        finished = [unit for unit in units if study.done.has(unit)]
        if not finished:
            continue
        results = [study.done.result(unit) for unit in finished]
        seconds = fmean(study.done.seconds(unit) for unit in finished)
        each = {
            key: fmean(of) if (of := [r[key] for r in results if r[key] is not None]) else None
            for key in ("steps", "seconds_per_step", "images_per_second", "pipeline_share")
        }
        share = each["pipeline_share"]
        rows.append(
            [
                name,
                str(len(finished)),
                f"{each['steps']:,.0f}",
                duration(seconds),
                f"{each['seconds_per_step']:.3f}",
                f"{each['images_per_second']:.1f}",
                "" if share is None else f"{100 * share:.0f}%",
            ]
        )
        numbers[name] = each | {"runs": len(finished), "seconds": seconds}
    if not rows:
        return None
    text = (
        "Means over the runs. The last column is the time that the pipeline takes to make a batch (one core, or "
        "`data.workers` of them), as a share of the time of a step. It works beside the step, which waits for it only "
        "if the share exceeds 100%."
    )
    head = ["", "runs", "steps", "time of a run", "seconds per step", "pictures per second", "making a batch"]
    return Part([Paragraph(text), Table(head, rows)], numbers)


def _by_step(line: figures.Line) -> dict[float, float]:
    return dict(zip(line.x, line.y, strict=True))


def _series(study: Study, arm: Arm, prefix: str) -> dict[str, figures.Line]:
    """Returns metrics by step, mean over the runs of an arm, without the prefix of their names."""
    values: dict[str, dict[int, list[float]]] = {}
    for pair in study.pairs(arm):
        unit = study.run_unit(arm, pair)
        if study.done.has(unit):
            for line in read_metrics(study.folder / unit / "run" / "metrics.jsonl"):
                for name, value in line.items():
                    if name.startswith(prefix) and isinstance(value, (int, float)):
                        values.setdefault(name.removeprefix(prefix), {}).setdefault(line["step"], []).append(value)
    return {name: figures.Line(sorted(at), [fmean(at[step]) for step in sorted(at)]) for name, at in values.items()}
