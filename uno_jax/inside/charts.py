"""Charts of numbers by layer and time; they need matplotlib."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from PIL import Image

from uno_jax.inside.gradients import Gradients
from uno_jax.inside.look import Findings, Settings
from uno_jax.inside.questions import Question
from uno_jax.inside.sheets import state_name

matplotlib.use("agg")

_COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown")
_STYLES = ("--", "-", ":", "-.")


def probe_chart(
    names: Sequence[str], findings: Sequence[Findings], question: Question, number: int, settings: Settings
) -> Image.Image:
    """Draws the areas under the ROC curve of a question by layer and time, for each checkpoint.

    A further panel for each checkpoint after the first shows its difference from the first.

    Args:
      names: names of the checkpoints.
      findings: what was found in each.
      question: the question.
      number: its index among the questions.
      settings: what was looked at.
    """
    kinds = {"mean over tokens": "pooled", "best token": "tokens"}
    panels = len(names) + max(len(names) - 1, 0)
    figure = Figure(figsize=(1.2 + 0.72 * len(settings.times) * panels, 1.1 + 0.48 * len(settings.layers) * len(kinds)))
    axes = figure.subplots(len(kinds), panels, squeeze=False)
    for row, (label, kind) in enumerate(kinds.items()):
        areas = [_areas(found, kind, number, settings) for found in findings]
        for column, (name, values) in enumerate(zip(names, areas, strict=True)):
            _heat_map(axes[row, column], f"{name}, {label}", values, settings, (0.5, 1.0), "viridis", "{:.2f}")
        for column, (name, values) in enumerate(zip(names[1:], areas[1:], strict=True), start=len(names)):
            title = f"{name} - {names[0]}, {label}"
            _heat_map(axes[row, column], title, values - areas[0], settings, (-0.1, 0.1), "RdBu", "{:+.2f}")
    answers = len(question.answers)
    figure.suptitle(f"Linear probes of {question.name}: area under the ROC curve, mean of {answers} (0.5: chance)")
    return _image(figure)


def gradient_chart(names: Sequence[str], found: Sequence[Gradients], weights: Mapping[str, float]) -> Image.Image:
    """Draws norms and cosines of the gradients of the losses by layer; one line style per checkpoint."""
    figure = Figure(figsize=(11, 4.2))
    left, right = figure.subplots(1, 2)
    losses = list(dict.fromkeys(loss for gradients in found for loss in gradients.norms))
    pairs = list(dict.fromkeys(pair for gradients in found for pair in gradients.cosines))
    for name, gradients, style in zip(names, found, _STYLES * len(names), strict=False):
        for loss, norms in gradients.norms.items():
            label = f"{name}: {loss} (weight {weights[loss]:g})"
            colour = _COLOURS[losses.index(loss) % len(_COLOURS)]
            left.plot(range(1, len(norms) + 1), norms, style, color=colour, marker="o", label=label)
        for pair, cosines in gradients.cosines.items():
            colour = _COLOURS[pairs.index(pair) % len(_COLOURS)]
            label = f"{name}: {' and '.join(pair)}"
            right.plot(range(1, len(cosines) + 1), cosines, style, color=colour, marker="o", label=label)
    left.set(title="Gradient norm into each layer, before weights", xlabel="layer", yscale="log")
    largest = max(
        [0.2, *(float(np.abs(cosines).max()) for gradients in found for cosines in gradients.cosines.values())]
    )
    right.set(title="Cosine between gradients", xlabel="layer", ylim=(-1.1 * largest, 1.1 * largest))
    right.axhline(0, color="gray", linewidth=0.5)
    for axes in (left, right):
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(fontsize=7, handlelength=4)
    return _image(figure)


def _areas(found: Findings, kind: str, number: int, settings: Settings) -> Float[np.ndarray, "layers times"]:
    return np.array(
        [[getattr(found.probes[layer, time], kind)[number].auc for time in settings.times] for layer in settings.layers]
    )


def _heat_map(
    axes: Any,
    title: str,
    values: Float[np.ndarray, "layers times"],
    settings: Settings,
    limits: tuple[float, float],
    colours: str,
    number: str,
) -> None:
    image = axes.imshow(values, cmap=colours, vmin=limits[0], vmax=limits[1], aspect="auto", origin="lower")
    axes.set_title(title, fontsize=8)
    axes.set_xticks(range(len(settings.times)), [f"{time:g}" for time in settings.times], fontsize=7)
    axes.set_yticks(range(len(settings.layers)), [state_name(layer) for layer in settings.layers], fontsize=7)
    axes.set_xlabel("t", fontsize=7)
    for (row, column), value in np.ndenumerate(values):
        red, green, blue, _ = image.to_rgba(value)
        text = "white" if 0.3 * red + 0.59 * green + 0.11 * blue < 0.5 else "black"
        axes.text(column, row, number.format(round(value, 2) + 0.0), ha="center", va="center", fontsize=7, color=text)


def _image(figure: Figure) -> Image.Image:
    figure.tight_layout()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return Image.open(buffer).convert("RGB")
