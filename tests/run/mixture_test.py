"""A run on a mixture of datasets."""

from __future__ import annotations

import shutil

import pytest

from tests.helpers.tiny_run import quiet, stop_at, tiny_uno
from uno_jax.config import ConfigError
from uno_jax.run.run import run
from uno_jax.training.metrics import read_metrics


def test_a_run_on_two_datasets_resumes_from_moved_ones_and_measures_each_of_them(dataset, tmp_path):
    def config(folder, steps=4, **photos):
        parts = {
            "photos": {"directory": str(folder), "weight": 3.0, "task_weights": {"text_to_image": 1.0}, **photos},
            "edits": {"directory": str(folder), "method": "sft", "task_weights": {"editing": 1.0}},
        }
        return tiny_uno("", **{"data.mixture": parts, "evaluation.every": 2, "pictures.every": 2, "steps": steps})

    workdir, console = tmp_path / "run", quiet()
    assert not run(config(dataset), workdir, make_generate_pictures=stop_at(2), console=console)
    moved = shutil.copytree(dataset, tmp_path / "moved")
    assert run(config(moved), workdir, console=console)
    printed = console.file.getvalue()
    assert "24 train, 24 test, weight 3, method uno" in printed
    assert "24 train, 24 test, weight 1, method sft" in printed
    lines = [line for line in read_metrics(workdir / "metrics.jsonl") if "samples" in line]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    for line in lines:
        assert line["samples"] == line.get("samples/photos", 0) + line.get("samples/edits", 0)
    for line in lines:
        of_datasets = [line[name] for name in ("flow/dataset/photos", "flow/dataset/edits") if name in line]
        assert min(of_datasets) <= line["flow"] * 1.0001
        assert line["flow"] <= max(of_datasets) * 1.0001
    [held_out, *_] = [line for line in read_metrics(workdir / "metrics.jsonl") if "held_out/flow" in line]
    assert {"held_out/flow/dataset/photos", "held_out/flow/dataset/edits"} <= held_out.keys()
    assert "held_out/caption/dataset/edits" not in held_out  # whose method is sft
    for name in ("photos", "edits"):
        assert sum(line.get(f"samples/{name}", 0) for line in lines)
    with pytest.raises(ConfigError, match="config.data.mixture is .*'weight': 5.0"):
        run(config(moved, steps=6, weight=5.0), workdir, console=quiet())
