"""Tiny prompt files in the formats of public benchmarks, with made-up content."""

from __future__ import annotations

import csv
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


IMGEDIT = {"412": ("animal/1.jpg", "remove"), "7": ("daily object/2.jpg", "add")}


def write_imgedit(folder: Path) -> Path:
    """Writes two edits and their pictures. Returns the folder."""
    records = {}
    for key, (picture, kind) in IMGEDIT.items():
        (folder / "singleturn" / picture).parent.mkdir(parents=True)
        (folder / "singleturn" / picture).write_bytes(encoded_picture((200, 40, 40), "JPEG"))
        records[key] = {"id": picture, "prompt": "thing", "edit_type": kind}
    (folder / "basic_edit.json").write_text(json.dumps(records))
    return folder


KRIS = {
    "physics": {"1": ("1.jpg", "melt"), "2": ("2.jpg", "freeze")},
    "multi-element_composition": {"7": (["7_1.png", "7_2.png"], "thing")},
}


def write_kris(folder: Path) -> Path:
    """Writes three edits of two categories, one of two pictures. Returns the folder."""
    for category, edits in KRIS.items():
        (folder / category).mkdir(parents=True)
        records = {}
        for name, (pictures, prompt) in edits.items():
            for number, picture in enumerate(pictures if isinstance(pictures, list) else [pictures]):
                (folder / category / picture).write_bytes(encoded_picture((200, 40 * number, 40), "JPEG"))
            records[name] = {"ori_img": pictures, "gt_img": "", "ins_en": prompt, "explain_en": "any"}
        (folder / category / "annotation.json").write_text(json.dumps(records))
    return folder


RISE = {"temporal_reasoning_1": "temporal_reasoning", "logical_reasoning_9": "logical_reasoning"}


def write_rise(folder: Path) -> Path:
    """Writes two edits. Returns the folder."""
    records = []
    for index, category in RISE.items():
        picture = f"{category}_images/{index}.png"
        (folder / picture).parent.mkdir(parents=True)
        (folder / picture).write_bytes(encoded_picture((200, 40, 40)))
        records.append(
            {"index": index, "category": category, "subtask": "any", "instruction": "thing", "image": picture}
        )
    (folder / "datav2_total_w_subtask.json").write_text(json.dumps(records))
    return folder


UNIGEN = {
    "0": (
        "thing",
        '{"Primary Categories": "Style ", "Testpoints": ["Style", "Attribute - Color"], '
        '"Testpoint Description": ["ink", "a red cup"]}',
    ),
    "509": ("a number, and more", '{"Primary Categories": "Style" "Testpoints": []}'),
}


def write_unigen(folder: Path, kind: str = "en") -> Path:
    """Writes two prompts, one with broken categories. Returns the folder that holds `data`."""
    (folder / "data").mkdir(parents=True)
    language = kind.split("_")[0]
    with (folder / "data" / f"test_prompts_{kind}.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["index", f"prompt_{language}", f"sub_dims_{language}"])
        writer.writerows([index, *texts] for index, texts in UNIGEN.items())
    return folder


def write_geneval2(folder: Path) -> Path:
    """Writes two prompts. Returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    records = [
        {"prompt": "thing", "atom_count": 3, "vqa_list": [["How many?", "two"]], "skills": ["count"]},
        {"prompt": "two numbers", "atom_count": 10, "vqa_list": [["Any?", "Yes"]], "skills": ["object"]},
    ]
    (folder / "geneval2_data.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return folder
