"""DPG-Bench (TencentQQGYLab/ELLA): long prompts, judged by questions to a VQA model."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from uno_jax.evaluation.benchmark import (
    IMAGES,
    SAMPLES,
    Benchmark,
    BenchmarkError,
    Data,
    Item,
    Preset,
    Score,
    Seen,
    check_result,
    data_of,
    read_text,
)
from uno_jax.evaluation.presets import OURS, TEXT_TO_IMAGE
from uno_jax.inference.picture_files import read_settings, write_picture

_SIDE = 2  # of a grid, in pictures
_LINE = re.compile(r"(?P<path>.+?)(?P<scores>(?:, [0-9.eE+-]+){5})$")


def _read(path: Path) -> Data:
    """Reads `prompts/<id>.txt`, one prompt per file."""
    folder = path / "prompts" if (path / "prompts").is_dir() else path
    files = sorted(folder.glob("*.txt")) if folder.is_dir() else []
    if not files:
        raise BenchmarkError(f"{path}: there are no .txt files; give the folder dpg_bench/prompts of ELLA")
    items = [Item(file.stem, read_text(file).strip(), _category(file.stem), str(file)) for file in files]
    return data_of(items, files)


def _category(name: str) -> str:
    """Returns the collection that a prompt comes from: the letters of its id."""
    match = re.match(r"[A-Za-z_]+", name)
    return match[0].strip("_") if match else "numbered"


def _picture(item: Item, sample: int, name: str) -> str:
    return f"{SAMPLES}/{item.id}_{sample}.png"


def _finish(out: Path, item: Item, name: str, pictures: Sequence[Path]) -> None:
    """Writes the grid of the four samples: top left, top right, bottom left, bottom right."""
    file = out / IMAGES / f"{item.id}.png"
    settings = {"samples": [read_settings(picture) for picture in pictures]}
    if read_settings(file) == settings:
        return
    images = []
    for picture in pictures:
        with Image.open(picture) as image:
            images.append(image.convert("RGB"))
    width, height = images[0].size
    grid = Image.new("RGB", (_SIDE * width, _SIDE * height))
    for number, sample in enumerate(images):
        grid.paste(sample, (number % _SIDE * width, number // _SIDE * height))
    file.parent.mkdir(parents=True, exist_ok=True)
    write_picture(file, grid, settings)


def _score(files: Sequence[Path], items: Mapping[str, Item]) -> Score:
    """Reads `dpg-bench_<time>_results.txt`: a line per image with the scores of its crops and their mean.

    The breakdown that the scorer appends is not read, because it counts the last crop only.
    """
    scores: dict[str, float] = {}
    seen: Seen = {}
    for file in files:
        for number, line in enumerate(read_text(file).splitlines(), start=1):
            match = _LINE.match(line)
            if match is None:
                continue
            name = Path(match["path"].replace("\\", "/")).name.split(".")[0]
            where = f"{file}:{number}"
            check_result(name, items, seen, where, shown=match["path"])
            crops = [float(text) for text in match["scores"].split(", ")[1:5]]
            scores[name] = float(np.mean(crops))
    if not scores:
        raise BenchmarkError(f"{files[0]}: no scores of four crops; expected dpg-bench_<time>_results.txt")
    groups: dict[str, list[float]] = {}
    for name, score in scores.items():
        groups.setdefault(items[name].category, []).append(score)
    return Score(
        averages={
            "mean of scored images": 100 * float(np.mean(list(scores.values()))),
            "unscored images as 0": 100 * float(sum(scores.values())) / len(items),
        },
        categories={name: 100 * float(np.mean(values)) for name, values in sorted(groups.items())},
        items={name: 100 * score for name, score in scores.items()},
        pictures=4 * len(scores),
    )


DPG = Benchmark(
    name="dpg",
    about="DPG-Bench",
    published=1065,
    samples=_SIDE**2,
    presets={
        "reca": Preset(
            "RecA's script, because BAGEL published none",
            dataclasses.replace(TEXT_TO_IMAGE, text_scale=3.0),
            prefix="Generate an image: ",
        ),
        "ours": OURS,
    },
    read=_read,
    picture=_picture,
    scorer="PIC_NUM=4 PROCESSES=1 bash dpg_bench/dist_eval.sh {images} SIDE (in a checkout of TencentQQGYLab/ELLA; "
    "SIDE is that of one picture, half of an image in the folder)",
    finish=_finish,
    score=_score,
)
