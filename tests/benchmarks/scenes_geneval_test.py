"""Scenes as a benchmark in the format of GenEval (`benchmarks/scenes_geneval.py`)."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from benchmarks.scenes_geneval import main
from tests.helpers.evaluate_command import succeed
from tests.helpers.evaluated import write_evaluated
from uno_jax.data.scenes.draw import draw_scene
from uno_jax.data.scenes.generate import example_of
from uno_jax.evaluation.registry import BENCHMARKS


def test_scenes_as_drawn_are_right_and_others_wrong(tmp_path: Path):
    """The whole way: prompts, pictures, judge, and GenEval's average."""
    main(["prompts", f"--out={tmp_path}", "--count=6"])
    benchmark = BENCHMARKS["geneval"]
    items = benchmark.read(tmp_path).items
    assert [item.category for item in items] == [
        "single_object",
        "two_object",
        "counting",
        "colors",
        "position",
        "color_attr",
    ]
    out = write_evaluated(tmp_path / "out", "geneval", {item.id: item.category for item in items}, samples=2)
    for item in items:
        file = out / benchmark.picture(item, 0, "any")  # the other sample shows nothing
        Image.fromarray(draw_scene(example_of(item.published["scene"]).scene, 64)).save(file)
        (out / f"images/{item.id}/metadata.jsonl").write_text(json.dumps(item.published))
    main(["judge", f"--run={out}", f"--results={tmp_path / 'results.jsonl'}"])
    succeed("score", f"--out={out}", f"--results={tmp_path / 'results.jsonl'}")
    score = json.loads((out / "score.json").read_text())
    assert score["averages"] == {"mean of kinds": 0.5, "mean of images": 0.5, "prompts with a correct image": 1.0}
