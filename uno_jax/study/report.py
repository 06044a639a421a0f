"""The report of a study: `report.md`, `report.html`, `report.json` and figures, of everything that is done so far."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from uno_jax.config import json_file, to_json
from uno_jax.process.files import atomic_file
from uno_jax.study.document import Block, Heading, Listing, Paragraph, markdown, one_file_html
from uno_jax.study.parts.accuracy import accuracy, categories, curves, edits, resolution
from uno_jax.study.parts.part import Part
from uno_jax.study.parts.reading import noised_reading, reading
from uno_jax.study.parts.samples import samples
from uno_jax.study.parts.training import gradients, losses, runs, tuning
from uno_jax.study.plan import Study, units
from uno_jax.study.version import about_code

PARTS: Sequence[tuple[str, Callable[[Study, Path], Part | None]]] = (
    ("Accuracy", accuracy),
    ("By category", categories),
    ("Over training", curves),
    ("Samples", samples),
    ("Edits", edits),
    ("Reading", reading),
    ("Reading noised latents", noised_reading),
    ("Tuning", tuning),
    ("Gradients", gradients),
    ("Held-out losses", losses),
    ("What can be resolved", resolution),
    ("Runs", runs),
)
"""Heading and maker of each part, in their order. A maker returns None if nothing of it is done yet."""


def write_report(study: Study) -> Path:
    """Writes the report of what is done into the folder of the study, and returns the path of the Markdown."""
    found = {title: part for title, make in PARTS if (part := make(study, study.folder / "figures")) is not None}
    blocks: list[Block] = [*_opening(study)]
    for title, part in found.items():
        blocks += [Heading(title), *part.blocks]
    blocks += [Heading("Config"), Listing(json_file(study.config).decode().rstrip())]
    numbers = {
        **about_code(),
        "config": to_json(study.config),
        "parts": {title: part.numbers for title, part in found.items()},
    }
    contents = {
        "report.json": json_file(numbers),
        "report.html": one_file_html(blocks, study.folder).encode(),
        "report.md": markdown(blocks).encode(),
    }
    for name, content in contents.items():
        with atomic_file(study.folder / name) as temporary:
            temporary.write_bytes(content)
    return study.folder / "report.md"


def _opening(study: Study) -> Iterator[Block]:
    everything, done = units(study), study.done
    finished = [unit for unit in everything if done.has(unit.name)]
    code = about_code()
    commit = f", commit `{code['commit']}`" if code["commit"] else ""
    hours = sum(done.seconds(unit.name) for unit in finished) / 3600
    left = len(everything) - len(finished)
    yield Heading(study.config.title, level=1)
    yield Paragraph(
        f"uno_jax {code['version']}{commit}. {len(finished)} of {len(everything)} units are done, which took "
        f"{hours:.1f} hours of work.{f' The report is incomplete: {left} are left.' if left else ''}"
    )
