"""The two tables that a run prints: sizes at start-up, and held-out losses at the end."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import rich.table
from flax.traverse_util import flatten_dict

from uno_jax.models.adapters import ADAPTERS
from uno_jax.objectives.losses import LOSSES, SUPERVISION
from uno_jax.training.evaluation import PROMPT_DROPPED
from uno_jax.training.state import Params

# Display names of the model's parts, and the parameter paths of each.
PARTS = (
    ("understanding expert", ("decoder/layers/understanding", "decoder/norm/understanding")),
    ("low-rank adapters", (ADAPTERS,)),
    ("generation expert", ("decoder/layers/generation", "decoder/norm/generation")),
    ("embedding and vocabulary head", ("decoder/embedding", "decoder/head")),
    ("vision encoder", ("vision",)),
    ("connector", ("connector",)),
    ("latent projections, timestep embedder", ("latent_in", "latent_out", "timestep_embedder")),
    ("metaqueries and their head", ("metaqueries",)),
    ("head of the align loss", ("align_head",)),
    ("autoencoder", ("autoencoder",)),
)


def part_of(path: str) -> str:
    """Returns the part that a parameter belongs to, by its path with slashes."""
    return next(part for part, prefixes in PARTS if path.startswith(prefixes))


def count_parameters(tree: Any) -> int:
    """Counts the parameters in a tree of arrays or ShapeDtypeStruct."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def parameters_by_part(trainable: Params, frozen: Params) -> dict[str, tuple[int, int]]:
    """Counts (trainable, frozen) parameters of each non-empty part of the model."""
    counts = {part: [0, 0] for part, _ in PARTS}
    for kind, tree in enumerate((trainable, frozen)):
        for path, leaf in flatten_dict(tree, sep="/").items():
            counts[part_of(path)][kind] += count_parameters(leaf)
    return {part: (trained, rest) for part, (trained, rest) in counts.items() if trained or rest}


def startup_table(
    title: str,
    trainable: Params,
    frozen: Params,
    autoencoder: Params,
    tokens: Mapping[str, int],
    facts: Sequence[tuple[str, str]],
) -> rich.table.Table:
    """Makes a table of the parameters of each part, the tokens of each region per step, and the caller's `facts`."""
    table = rich.table.Table(title=title, title_justify="left", show_edge=False, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    rows = parameters_by_part(trainable, frozen)
    if autoencoder:
        rows["autoencoder"] = (0, count_parameters(autoencoder))
    totals = tuple(map(sum, zip(*rows.values(), strict=True)))
    for part, counts in rows.items():
        table.add_row(part, _trainable_and_frozen(*counts))
    table.add_row("all parameters", _trainable_and_frozen(*totals), style="bold", end_section=True)
    for region, count in tokens.items():
        table.add_row(f"{region} tokens per step", f"{count:,}")
    table.add_section()
    for name, value in facts:
        table.add_row(name, value)
    return table


def _trainable_and_frozen(trainable: int, frozen: int) -> str:
    return "  ".join(f"{_count(n):>9} {kind:9}" for n, kind in ((trainable, "trainable"), (frozen, "frozen")) if n)


def held_out_table(
    before: Mapping[str, float] | None, after: Mapping[str, float], constants: Mapping[str, float], steps: int
) -> rich.table.Table:
    """Makes a table of held-out losses at the start and the end of the run, and of constant predictors.

    Names are those of `evaluation.mean_losses`. Only totals are shown. A loss that did not decrease is marked.
    """
    table = rich.table.Table(title="Held-out losses", title_justify="left", show_edge=False, pad_edge=False)
    table.add_column("loss")
    table.add_column("step 0", justify="right")
    table.add_column(f"step {steps}", justify="right")
    table.add_column("", justify="left")
    table.add_column("constant predictor", justify="right")
    for name, label in _held_out_rows():
        if name not in after:
            continue
        start = (before or {}).get(name)
        verdict = "" if start is None else "lower" if after[name] < start else "NOT lower"
        constant = constants.get(name.split("/")[-1])
        table.add_row(
            label,
            "unknown" if start is None else f"{start:.4f}",
            f"{after[name]:.4f}",
            verdict,
            "" if constant is None else f"{constant:.4f}",
        )
    return table


def _held_out_rows() -> Iterator[tuple[str, str]]:
    """Yields name and label of each row: every loss, and supervision losses also with dropped prompts."""
    for loss in LOSSES:
        yield loss.name, loss.label
        if loss in SUPERVISION:
            yield PROMPT_DROPPED + loss.name, f"{loss.label}, prompt dropped"


def _count(n: int) -> str:
    """Formats a parameter count, such as 6.53 B, 83.8 M or 1.2 k."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if n >= size:
            return f"{n / size:.2f} {unit}"
    return str(n) if n else ""
