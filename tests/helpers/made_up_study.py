"""A study whose runs and scores are made up, for what reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from uno_jax.config import json_file
from uno_jax.study.config import BEFORE, Arm, BasePlan, Evaluation, RunPlan, SamplingPlan, StudyConfig, TuningPlan
from uno_jax.study.plan import Study, units
from uno_jax.study.unit import Unit

CATEGORIES = ("colours", "counting", "position")
CONFIG = StudyConfig(
    title="A made-up study",
    reference="sft",
    base=BasePlan(stages=(RunPlan("openmoji_pretrain"),), count=2),
    arms=(
        Arm("sft", "openmoji_sft", grid=(("optimizer.learning_rate=1e-3",), ("optimizer.learning_rate=3e-4",))),
        Arm("uno", "openmoji_uno", grid=(("optimizer.learning_rate=1e-3",), ("objective.caption_weight=0.1",))),
        Arm("reca", "openmoji_reca", seeds=1),
    ),
    seeds=2,
    steps=100,
    score_every=50,
    curve=(Evaluation("draw", "test", 60, 1.0),),
    final=(
        Evaluation("draw", "test", 90, 1.0),
        Evaluation("draw", "novel", 60),
        Evaluation("edit", "test", 30),
        Evaluation("read", "test", 20),
    ),
    reading=Evaluation("read", "test", 20),
    tuning=TuningPlan(records=30, scales=(1.0, 2.0)),
    sampling=SamplingPlan(times=(0.0, 0.5, 0.9), pictures=3),
)
ACCURACY = {BEFORE: 0.5, "sft": 0.6, "uno": 0.68, "reca": 0.55}
"""Share of records that each arm does right, on average."""


def make_up(folder: Path, config: StudyConfig = CONFIG, *, without: str = "") -> Study:
    """Writes made-up results of all units, except for those whose name begins with `without`."""
    study = Study(config, folder)
    for number, unit in enumerate(units(study)):
        if without and unit.name.startswith(without):
            continue
        where = folder / unit.name
        where.mkdir(parents=True, exist_ok=True)
        result: Any = {"steps": 100, "seconds_per_step": 0.5, "images_per_second": 40.0, "pipeline_share": 0.3}
        if "/scores/" in unit.name:
            lines = _lines(unit, np.random.default_rng(number), where)
            (where / "lines.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
            result = {"lines": len(lines), "right": sum(line["right"] for line in lines)}
        elif unit.kind.startswith("run of"):
            _metrics(unit, where / "run")
        (where / "unit.json").write_bytes(json_file({}))
        (where / "result.json").write_bytes(json_file({"result": result, "seconds": 60.0}))
    return study


def _lines(unit: Unit, random: np.random.Generator, folder: Path) -> list[dict[str, Any]]:
    share = ACCURACY[next((name for name in ACCURACY if f"/{name}/" in unit.name), BEFORE)]
    kind, _, records, *_ = folder.name.split("_")
    if kind == "read":
        return [_read_line(way, i, random) for way in _ways() for i in range(int(records))]
    lines = []
    for i in range(int(records)):
        difficulty = np.random.default_rng(i).uniform(-0.3, 0.3)  # the same for all arms
        line = {"job": f"r{i:03}", "prompt": f"a red star number {i}", "category": CATEGORIES[i % 3]}
        line["right"] = bool(random.random() < share + difficulty)
        if i % (int(records) // 3) == 0:
            line["picture"] = f"{i}.png"
            pixels = np.full((16, 16, 3), 200, np.uint8)
            pixels[4:12, 4:12] = (0, 160, 0) if line["right"] else (200, 0, 0)
            Image.fromarray(pixels).save(folder / line["picture"])
        lines.append(line)
    return lines


def _ways() -> list[dict[str, Any]]:
    clear = [(what, source, 0.0, "none") for what in ("caption", "answer") for source in ("vit", "latents")]
    noised = [("caption", "noised", t, prompt) for t in CONFIG.sampling.times for prompt in ("none", "own", "other")]
    return [dict(zip(("what", "source", "time", "prompt"), way, strict=True)) for way in clear + noised]


def _read_line(way: dict[str, Any], number: int, random: np.random.Generator) -> dict[str, Any]:
    name = " ".join(map(str, way.values()))
    right = bool(random.random() < 0.95 - way["time"] / 2)
    follows = bool(random.random() < way["time"])
    return {"job": f"{name} r{number}", "way": way, "right": right, "shapes": right, "shapes_of_other": follows}


def _metrics(unit: Unit, workdir: Path) -> None:
    workdir.mkdir()
    losses = ("flow", "caption", "visual") if "/uno/" in unit.name else ("flow",)
    lines = []
    for step in range(0, 101, 25):
        line: dict[str, Any] = {"step": step}
        line |= {f"gradient_norm/{name}": 0.1 * (i + 1) / (1 + step) for i, name in enumerate(losses)}
        line |= {f"gradient_cosine/flow_{name}": 0.1 - step / 1000 for name in losses[1:]}
        line |= {f"held_out/{name}": 1.0 / (1 + step / 50) for name in losses}
        lines.append(line)
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
