"""Scenes as a benchmark in the format of GenEval, for models that draw nothing else.

    python benchmarks/scenes_geneval.py prompts --out=DIR [--count=60]     writes evaluation_metadata.jsonl
    python benchmarks/scenes_geneval.py judge --run=DIR --results=FILE     judges what `evaluate generate` has written

The prompts are those of consecutive test scenes, which take turns in GenEval's six kinds. The judge is the exact scorer
of scenes (`docs/scenes.md`), in place of GenEval's detector. It reads the folder as that does, and writes such lines.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.append(str(Path(__file__).parent.parent))  # for a script only its own folder is on the path

from uno_jax.data.scenes.generate import example_of, make_example
from uno_jax.data.scenes.score import judge

TAGS = {
    "single_object": "single_object",
    "two_objects": "two_object",
    "counting": "counting",
    "colours": "colors",
    "position": "position",
    "attribute_binding": "color_attr",
}
"""Category of scenes -> GenEval's name of it."""
_SEED = 0


def prompts(count: int) -> list[dict[str, Any]]:
    """Returns GenEval's records of scenes. The field `scene`, which GenEval does not have, says of which."""
    examples = [make_example(_SEED, "test", number) for number in range(count)]
    return [
        {
            "tag": TAGS[example.category],
            "include": [
                {"class": shape, "count": number}
                for shape, number in Counter(thing.shape for thing in example.scene.things).items()
            ],
            "prompt": example.prompt,
            "scene": example.id,
        }
        for example in examples
    ]


def results(images: Path) -> list[dict[str, Any]]:
    """Returns the results of all pictures of a folder, with the fields of GenEval's `evaluate_images.py`."""
    lines = []
    for folder in sorted(path for path in images.iterdir() if path.is_dir()):
        record = json.loads((folder / "metadata.jsonl").read_text(encoding="utf-8"))
        example = example_of(record["scene"])
        for file in sorted((folder / "samples").glob("[0-9]*.png")):
            with Image.open(file) as image:
                judged = judge(example.facts, example.total, np.asarray(image.convert("RGB")))
            line = {"filename": str(file), "tag": record["tag"], "prompt": record["prompt"], "correct": judged.right}
            lines.append({**line, "reason": "", "metadata": json.dumps(record)})
    return lines


def write_lines(file: Path, lines: Sequence[dict[str, Any]]) -> None:
    """Writes one JSON object per line."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")


def main(arguments: Sequence[str]) -> None:
    """Runs a part of the file's description."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    part = parts.add_parser("prompts")
    part.add_argument("--out", type=Path, required=True)
    part.add_argument("--count", type=int, default=60)
    part = parts.add_parser("judge")
    part.add_argument("--run", type=Path, required=True)
    part.add_argument("--results", type=Path, required=True)
    options = parser.parse_args(arguments)
    if options.part == "prompts":
        write_lines(options.out / "evaluation_metadata.jsonl", prompts(options.count))
    else:
        write_lines(options.results, results(options.run / "images"))


if __name__ == "__main__":
    main(sys.argv[1:])
