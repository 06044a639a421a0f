"""A complete study of a tiny model on a handful of scenes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from uno_jax.config import json_file
from uno_jax.data.record import Record
from uno_jax.data.records import write_records
from uno_jax.data.scenes.draw import draw_scene
from uno_jax.data.scenes.generate import make_example
from uno_jax.data.tokenizer import train_tokenizer
from uno_jax.data.transforms import encode_png
from uno_jax.study.config import (
    Arm,
    BasePlan,
    DatasetPlan,
    Evaluation,
    RunPlan,
    SamplingPlan,
    StudyConfig,
    TuningPlan,
)

SPLITS = {"train": 24, "test": 12, "dev": 6, "novel": 6}


def write_scenes(directory: Path) -> Path:
    """Writes a prepared dataset of a few scenes of 16 pixels."""
    splits = {
        split: lambda split=split, count=count: [_record(split, number) for number in range(count)]
        for split, count in SPLITS.items()
    }
    write_records(directory, "scenes", splits, description="scenes", license_text="none")
    train_tokenizer([_record("train", number).prompt for number in range(24)], 300, directory / "tokenizer")
    (directory / "dataset.json").write_bytes(json_file({"parameters": {"dataset": "scenes"}, "records": SPLITS}))
    return directory


def _record(split: str, number: int) -> Record:
    example = make_example(0, split, number)
    image = encode_png(Image.fromarray(draw_scene(example.scene, 16)))
    if number % 3 == 2:
        return Record(f"{example.id}/q", "understanding", image, "how many?", answer=str(example.total))
    return Record(example.id, "text_to_image", image, example.prompt, example.captions)


def tiny_study(folder: Path, dataset: Path, **fields: Any) -> StudyConfig:
    """Returns a study of two arms on one base, with config files in `folder`."""
    return StudyConfig(
        **{
            "data": DatasetPlan(directory=str(dataset)),
            "base": BasePlan(stages=(RunPlan(config_file(folder, dataset, "openmoji_pretrain")),), vision_steps=2),
            "arms": tuple(Arm(name, config_file(folder, dataset, f"openmoji_{name}")) for name in ("sft", "uno")),
            "steps": 2,
            "final": (Evaluation("draw", "test", 5, 1.0), Evaluation("read", "test", 2)),
            "reading": Evaluation("read", "test", 2),
            "tuning": TuningPlan(records=2, scales=(1.0,)),
            "sampling": SamplingPlan(timesteps=3, batch=4, caption_tokens=4, times=(0.5,), pictures=2),
            **fields,
        },
    )


def config_file(folder: Path, dataset: Path, name: str) -> str:
    """Writes the config file of a tiny run like a built-in one, and returns its path."""
    file = folder / f"{name}.py"
    # Texts of scenes are long in tokens of so small a vocabulary. Evaluation and probe would be programs to compile.
    changes = {"data.text_tokens": 300, "evaluation.records": 0, "objective.balance.every": 0}
    if "uno" in name:
        changes["data.caption_tokens"] = 300
    file.write_text(
        "from pathlib import Path\n"
        f"from configs import {name}\n"
        "from tests.helpers.tiny_run import tiny\n"
        "from uno_jax.config import to_config_dict\n"
        "def get_config():\n"
        f"    changes = {changes!r}\n"
        f"    return to_config_dict(tiny({name}.get_config(), Path({str(dataset)!r}), steps=2, **changes))\n"
    )
    return str(file)
