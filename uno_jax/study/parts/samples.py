"""Sheets of samples: the same prompts and noise for all arms, side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from uno_jax.inference.picture_files import write_png
from uno_jax.sheets.samples import Example, Picture, make_sheet
from uno_jax.study.config import BEFORE, Evaluation
from uno_jax.study.document import Block, Figure, Paragraph
from uno_jax.study.parts.part import Part, names_of, title_of
from uno_jax.study.plan import Pair, Study, Subject
from uno_jax.study.results import Line, lines_of


def samples(study: Study, folder: Path) -> Part | None:
    """Makes a sheet for each set of prompts and edits, of the first base and seed."""
    blocks: list[Block] = []
    for evaluation in study.config.final:
        if evaluation.kind == "read":
            continue
        examples = _examples(study, evaluation)
        if not examples:
            continue
        file = f"samples_{evaluation.name}.png"
        folder.mkdir(parents=True, exist_ok=True)
        write_png(folder / file, make_sheet(title_of(evaluation), examples))
        blocks.append(Figure(f"figures/{file}", f"samples of all arms: {title_of(evaluation)}"))
    if not blocks:
        return None
    about = (
        "The same prompts and noise for all arms, of the first base and seed. Prompts are evenly spaced over the "
        "split, not selected."
    )
    return Part([Paragraph(about), *blocks], None)


def _examples(study: Study, evaluation: Evaluation) -> list[Example]:
    kept: dict[str, dict[str, Picture]] = {}
    prompts: dict[str, str] = {}
    for name in names_of(study.config):
        unit = study.score_unit(_first(study, name), evaluation)
        if not study.done.has(unit):
            continue
        for line in lines_of(study.folder / unit):
            if "picture" in line:
                prompts[line["job"]] = line["prompt"]
                kept.setdefault(line["job"], {})[name] = _picture(name, line, study.folder / unit)
    task = {"draw": "text_to_image", "edit": "editing"}[evaluation.kind]
    return [Example(task, prompts[job], list(pictures.values())) for job, pictures in kept.items()]


def _picture(name: str, line: Line, folder: Path) -> Picture:
    pixels = np.asarray(Image.open(folder / line["picture"]).convert("RGB"))
    return Picture(f"{name}: {'right' if line['right'] else 'wrong'}", pixels)


def _first(study: Study, name: str) -> Subject:
    return Subject(study.base_unit(0) if name == BEFORE else study.run_unit(study.arm(name), Pair(0, 0)))
