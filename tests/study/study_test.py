"""A study from its data to its report: every unit once, continued after a signal, refused after a change."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.helpers.tiny_run import quiet
from tests.helpers.tiny_study import tiny_study, write_scenes
from uno_jax.config import ConfigError
from uno_jax.study.config import BasePlan, Evaluation
from uno_jax.study.plan import Study, units
from uno_jax.study.results import lines_of
from uno_jax.study.run import Choice, run_study
from uno_jax.study.work import MissingUnits

pytestmark = pytest.mark.usefixtures("quick_compiles")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("data") / "scenes")


@pytest.fixture(scope="module")
def finished(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A complete study, which no test changes."""
    folder = tmp_path_factory.mktemp("finished")
    study = Study(tiny_study(folder, dataset), folder / "study")
    assert run_study(study, Choice(), quiet())
    return study


def results(study: Study) -> dict[str, int]:
    """When the result of each finished unit was written."""
    files = {unit.name: study.folder / unit.name / "result.json" for unit in units(study)}
    return {name: file.stat().st_mtime_ns for name, file in files.items() if file.exists()}


def changed(study: Study, **fields: object) -> Study:
    return Study(dataclasses.replace(study.config, **fields), study.folder)


def test_a_study_does_all_units_and_writes_its_report(finished):
    assert all(finished.done.has(unit.name) for unit in units(finished))
    assert {"report.md", "report.html", "report.json"} <= {path.name for path in finished.folder.iterdir()}


def test_what_is_done_is_kept(finished):
    before = results(finished)
    assert run_study(finished, Choice(), quiet())
    assert results(finished) == before


def test_every_prompt_has_a_line_that_says_what_is_right(finished):
    evaluation = finished.config.final[0]
    lines = lines_of(finished.folder / "runs/uno/b0s0/scores/last" / evaluation.name)
    assert len(lines) == evaluation.records
    assert all(line["right"] == (line["total"] and all(line["facts"])) for line in lines)


def test_arms_start_from_the_base(finished):
    config = json.loads((finished.folder / "runs/uno/b0s0/run/checkpoints/2/assets/config.json").read_text())
    assert Path(config["init_from"]) == (finished.folder / "base/b0/stage1/run/checkpoints/2").resolve()


def test_a_changed_config_is_refused_and_nothing_is_lost(finished):
    before = results(finished)
    with pytest.raises(ConfigError, match=r"runs/sft/b0s0: steps: 2 -> 3") as error:
        run_study(changed(finished, steps=3), Choice(), quiet())
    assert "runs/uno/b0s0: steps" in str(error.value)
    assert "base/b0/stage1" not in str(error.value)
    assert results(finished) == before


def test_a_stage_whose_needs_are_not_done_is_refused(finished, tmp_path):
    with pytest.raises(MissingUnits, match="runs/sft/b0s0 needs data"):
        run_study(Study(finished.config, tmp_path), Choice(stages=("runs",)), quiet())


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (Choice(stages=("run",)), "--stages: there is no stage run; expected data, base"),
        (Choice(only=("runs/uno2/*",)), r"--only=runs/uno2/\* fits no unit"),
    ],
)
def test_a_choice_that_fits_nothing_is_refused(finished, choice, expected):
    with pytest.raises(ConfigError, match=expected):
        run_study(finished, choice, quiet())


def signal_when_written(file: Path) -> threading.Thread:
    """Sends a signal to this process when a file has a line."""

    def wait() -> None:
        while not file.exists() or not file.read_text():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


@pytest.mark.slow
def test_an_interrupted_study_continues_and_ends_like_an_uninterrupted_one(finished, dataset, tmp_path):
    base = BasePlan(checkpoint=str(finished.folder / "base/b0/stage1/run"))
    config = tiny_study(tmp_path, dataset, base=base, steps=40, final=(Evaluation("draw", "test", 5, 1.0),))
    config = dataclasses.replace(config, arms=config.arms[:1])
    broken, whole = Study(config, tmp_path / "broken"), Study(config, tmp_path / "whole")
    run = Path("runs/sft/b0s0")
    thread = signal_when_written(broken.folder / run / "run/metrics.jsonl")
    assert not run_study(broken, Choice(), quiet())
    thread.join()
    before = results(broken)
    assert before
    assert not broken.done.has(str(run))
    assert run_study(broken, Choice(), quiet())
    assert before.items() <= results(broken).items()
    assert run_study(whole, Choice(), quiet())
    scores = run / "scores/last/draw_test_5_scale1"
    assert lines_of(broken.folder / scores) == lines_of(whole.folder / scores)


def test_an_interrupted_scoring_keeps_its_lines(finished, dataset, tmp_path):
    base = BasePlan(checkpoint=str(finished.folder / "base/b0/stage1/run"))
    evaluation = Evaluation("draw", "test", 8, 1.0)
    study = Study(tiny_study(tmp_path, dataset, base=base, final=(evaluation,)), tmp_path / "study")
    unit = study.folder / "base/b0/given/scores/last" / evaluation.name
    chosen = Choice(only=("data", "base/b0/given", "base/b0/given/scores/last/draw_*"))
    assert run_study(study, chosen, quiet())
    whole = (unit / "lines.jsonl").read_text().splitlines(keepends=True)
    assert len(whole) == evaluation.records
    # What a killed process leaves: no result, and a last line that was cut off. The mark shows that a line was kept.
    (unit / "result.json").unlink()
    kept = whole[0].replace("{", '{"mark": 1, ', 1)
    (unit / "lines.jsonl").write_text(kept + whole[1] + whole[2][:20])
    assert run_study(study, chosen, quiet())
    first, *others = (unit / "lines.jsonl").read_text().splitlines(keepends=True)
    assert json.loads(first)["mark"] == 1
    assert others == whole[1:]
