"""Tiny prompt files in the formats of public benchmarks, with made-up content."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
from PIL import Image

GENEVAL = [
    {"tag": "single_object", "include": [{"class": "cup", "count": 1}], "prompt": "thing"},
    {
        "tag": "counting",
        "include": [{"class": "cat", "count": 2}],
        "exclude": [{"class": "cat", "count": 3}],
        "prompt": "number",
    },
    {
        "tag": "position",
        "include": [{"class": "cup", "count": 1}, {"class": "cat", "count": 1, "position": ["above", 0]}],
        "prompt": "yes",
    },
]


def write_geneval(folder: Path, name: str = "evaluation_metadata.jsonl") -> Path:
    """Writes three prompts of three kinds. Returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text("".join(f"{json.dumps(record)}\n" for record in GENEVAL))
    return file


DPG = {"partiprompts9": "thing number", "1234": "yes", "COCOval2014_7": "no"}


def write_dpg(folder: Path) -> Path:
    """Writes three prompts. Returns the folder that holds `prompts`."""
    (folder / "prompts").mkdir(parents=True)
    for name, prompt in DPG.items():
        (folder / "prompts" / f"{name}.txt").write_text(f"{prompt}\n")
    return folder


WISE = {
    "cultural_common_sense": [1, 400],
    "spatio-temporal_reasoning": [401, 568],
    "natural_science": [701, 801, 901],
}


def write_wise(folder: Path, suffix: str = "") -> Path:
    """Writes the three files of a protocol, with an item of each group and two of culture. Returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, ids in WISE.items():
        records = [
            {"Prompt": "thing", "Explanation": "a thing", "Category": name, "Subcategory": "any", "prompt_id": number}
            for number in ids
        ]
        (folder / f"{name}{suffix}.json").write_text(json.dumps(records))
    return folder


GEDIT = [("color_alter", "0a1b", "en", True), ("subject-add", "2c3d", "en", False), ("color_alter", "0a1b", "cn", True)]


def encoded_picture(colour: tuple[int, int, int], kind: str = "PNG") -> bytes:
    """A picture of one colour, 24 x 16 pixels."""
    content = io.BytesIO()
    Image.new("RGB", (24, 16), colour).save(content, kind)
    return content.getvalue()


def write_gedit(folder: Path) -> Path:
    """Writes a table of two English edits and one Chinese one. Returns the folder that holds `data`."""
    (folder / "data").mkdir(parents=True)
    shown, raw = encoded_picture((10, 200, 30)), encoded_picture((10, 200, 31), "JPEG")
    rows = [
        {
            "task_type": task,
            "key": key,
            "instruction": "thing",
            "instruction_language": language,
            "input_image": {"bytes": shown, "path": "a.png"},
            "input_image_raw": {"bytes": raw, "path": "a.jpg"},
            "Intersection_exist": common,
        }
        for task, key, language, common in GEDIT
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "data" / "train-00000-of-00001.parquet")
    return folder
