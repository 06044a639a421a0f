"""A page that shows pictures of several models side by side: one HTML file that needs no other."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from uno_jax.data.decoding import decoded
from uno_jax.evaluation.record import Made
from uno_jax.evaluation.runs import Run
from uno_jax.process.files import atomic_file

_SIDE = 512  # largest, of pictures on the page
_QUALITY = 88


def write_gallery(file: Path, runs: Sequence[Run], items: int) -> None:
    """Writes the page with the first sample of at most `items` prompts per benchmark, evenly spaced.

    A prompt has the pictures of all models that have made it, with the same seed.
    """
    models = list(dict.fromkeys(_column(run) for run in runs))
    entries = [entry for name in dict.fromkeys(run.benchmark for run in runs) for entry in _entries(runs, name, items)]
    data = json.dumps({"models": models, "entries": entries}, ensure_ascii=False).replace("</", "<\\/")
    page = _PAGE.replace("@TITLE@", html.escape(" and ".join(models))).replace("@DATA@", data)
    with atomic_file(file) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _column(run: Run) -> str:
    return f"{run.model}, {run.settings}"


def _entries(runs: Sequence[Run], benchmark: str, count: int) -> list[dict[str, Any]]:
    own = [run for run in runs if run.benchmark == benchmark]
    made = {_column(run): {each.item: each for each in run.record.pictures if each.sample == 0} for run in own}
    items = {item.id: (run, item) for run in reversed(own) for item in reversed(run.record.items)}
    chosen = list(reversed(items))
    if len(chosen) > count:
        chosen = [chosen[number] for number in np.linspace(0, len(chosen) - 1, count).round().astype(int)]
    entries = []
    for name in chosen:
        run, item = items[name]
        pictures = {}
        for each in own:
            picture = made[_column(each)].get(name)
            if picture is not None and (each.out / picture.file).is_file():
                pictures[_column(each)] = _shown(each, picture)
        if pictures:
            source = None if item.source is None else _encoded(run.out / item.source)[0]
            seed = next(made[column][name].seed for column in pictures)
            entries.append(
                {
                    "benchmark": benchmark,
                    "category": item.category,
                    "item": name,
                    "seed": seed,
                    "prompt": item.prompt,
                    "source": source,
                    "pictures": pictures,
                }
            )
    return entries


def _shown(run: Run, picture: Made) -> dict[str, Any]:
    image, thought = _encoded(run.out / picture.file)
    scores, words = {}, {}
    for score in run.scores:
        judge = score["judge"] or "score"
        if picture.item in score["items"]:
            scores[judge] = score["items"][picture.item]
        if picture.item in score.get("words", {}):
            words[judge] = score["words"][picture.item]
    return {"image": image, "thought": thought, "scores": scores, "words": words}


def _encoded(file: Path) -> tuple[str, str]:
    """Returns a picture as the address of its JPEG, not larger than `_SIDE`, and its thought."""
    with decoded(file.read_bytes()) as image:
        thought = str(image.info.get("thought", ""))
        small = image.convert("RGB")
    small.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    small.save(content, "JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}", thought


_PAGE = (Path(__file__).parent / "gallery.html").read_text(encoding="utf-8")
