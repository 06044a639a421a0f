"""Figures of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure

from uno_jax.process.files import atomic_file
from uno_jax.study.statistics import Estimate

# The colours of Okabe and Ito, which colour-blind people can tell apart. Grey is for what others are compared with.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5C99", "#8A8A00")
_GREY = "#555555"
_STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e5e5e5",
    "axes.axisbelow": True,
    "figure.dpi": 150,
}


class Line(NamedTuple):
    """One line of a plot."""

    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    """Lower ends of the intervals; None without intervals."""
    high: Sequence[float] | None = None


def colours(names: Sequence[str], grey: str = "") -> dict[str, str]:
    """Returns the colour of each name, the same in all figures."""
    others = [name for name in names if name != grey]
    return {grey: _GREY} | {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(others)}


def save(figure: Figure, file: Path) -> None:
    """Writes a figure as PNG."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(file) as temporary, mpl.rc_context(_STYLE):
        figure.savefig(temporary, format="png", bbox_inches="tight")


def differences(panels: Mapping[str, Mapping[str, Estimate]], reference: str, colour: Mapping[str, str]) -> Figure:
    """Draws the difference of each arm to the reference in points, with its interval; one panel per evaluation."""
    names = list(dict.fromkeys(name for panel in panels.values() for name in panel))
    figure, axes = _axes(len(panels), width=3.6, height=0.9 + 0.32 * len(names), share_y=True)
    for axis, (title, panel) in zip(axes, panels.items(), strict=True):
        axis.axvline(0, color=_GREY, linewidth=1)
        for row, name in enumerate(names):
            if name in panel:
                mean, low, high = (100 * value for value in panel[name])
                axis.plot([low, high], [row, row], color=colour[name], linewidth=2.5, solid_capstyle="butt")
                axis.plot([mean], [row], "o", color=colour[name], markersize=6)
        axis.set_yticks(range(len(names)), names)
        axis.set_ylim(len(names) - 0.5, -0.5)
        axis.grid(axis="y", visible=False)
        axis.set_title(title, loc="left", fontsize=10)
        axis.set_xlabel(f"minus {reference}, in points")
    return figure


def bars(panels: Mapping[str, Mapping[str, Mapping[str, Estimate]]], colour: Mapping[str, str], label: str) -> Figure:
    """Draws a group of bars per category, one bar per arm, in percent with intervals; one panel per evaluation."""
    groups = max(len(panel) for panel in panels.values())
    figure, axes = _axes(len(panels), width=max(6.0, 1.5 * groups), height=2.9, columns=1)
    for axis, (title, panel) in zip(axes, panels.items(), strict=True):
        names = list(dict.fromkeys(name for group in panel.values() for name in group))
        width = 0.84 / max(len(names), 1)
        for i, name in enumerate(names):
            shift = (i - (len(names) - 1) / 2) * width
            places = [group + shift for group, of in enumerate(panel.values()) if name in of]
            found = [of[name] for of in panel.values() if name in of]
            heights = [100 * estimate.mean for estimate in found]
            errors = [
                [100 * max(estimate.mean - estimate.low, 0) for estimate in found],
                [100 * max(estimate.high - estimate.mean, 0) for estimate in found],
            ]
            axis.bar(places, heights, width * 0.92, color=colour[name], label=name)
            axis.errorbar(places, heights, errors, fmt="none", ecolor="#222222", elinewidth=0.9)
        axis.set_xticks(range(len(panel)), [category.replace("_", " ") for category in panel])
        axis.grid(axis="x", visible=False)
        axis.set_title(title, loc="left", fontsize=10)
        axis.set_ylabel(label)
        axis.set_ylim(bottom=0)
    axes[0].legend(ncols=4, frameon=False, loc="lower left", bbox_to_anchor=(0, 1.08), fontsize=9)
    return figure


def lines(
    panels: Mapping[str, Mapping[str, Line]],
    colour: Mapping[str, str],
    x_label: str,
    y_label: str,
    *,
    log: bool = False,
    markers: bool = True,
    y_limits: tuple[float, float] | None = None,
) -> Figure:
    """Draws lines, with bands of their intervals if they have any; one panel per mapping of names to lines."""
    figure, axes = _axes(len(panels), width=4.6, height=3.2)
    shown: dict[str, Any] = {}
    for axis, (title, panel) in zip(axes, panels.items(), strict=True):
        for name, line in panel.items():
            (drawn,) = axis.plot(line.x, line.y, "o-" if markers else "-", color=colour[name], markersize=3.5, lw=1.6)
            shown.setdefault(name, drawn)
            if line.low is not None and line.high is not None:
                axis.fill_between(line.x, line.low, line.high, color=colour[name], alpha=0.13, linewidth=0)
        axis.set_title(title, loc="left", fontsize=10)
        axis.set_xlabel(x_label)
        axis.set_ylabel(y_label)
        if log:
            axis.set_yscale("log")
        if y_limits is not None:
            axis.set_ylim(*y_limits)
    figure.legend(
        shown.values(), shown, ncols=min(len(shown), 5), frameon=False, loc="lower left", bbox_to_anchor=(0.05, 1.0)
    )
    return figure


def _axes(count: int, *, width: float, height: float, columns: int = 3, share_y: bool = False) -> tuple[Figure, Any]:
    """Makes a figure of `count` panels, in inches per panel."""
    across = min(count, columns)
    down = -(-count // across)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width * across, height * down), layout="constrained")
        axes = figure.subplots(down, across, squeeze=False, sharey=share_y).ravel()
    for empty in axes[count:]:
        empty.remove()
    return figure, axes[:count]
