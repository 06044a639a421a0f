"""Tiny prompt files in the formats of public benchmarks, with made-up content."""

from __future__ import annotations

import json
from pathlib import Path

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
