"""The report states what the lines say, of whatever is done."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.made_up_study import CONFIG, make_up
from uno_jax.study.config import BEFORE
from uno_jax.study.plan import Pair, Study
from uno_jax.study.report import PARTS, write_report
from uno_jax.study.results import lines_of, measured

DRAWN = CONFIG.final[0]


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Study:
    study = make_up(tmp_path_factory.mktemp("study"))
    write_report(study)
    return study


def numbers(study: Study) -> dict:
    return json.loads((study.folder / "report.json").read_text())


def section(study: Study, title: str) -> str:
    return (study.folder / "report.md").read_text().split(f"\n## {title}\n")[1].split("\n## ")[0]


def rights(study: Study, unit: str) -> list[bool]:
    return [line["right"] for line in lines_of(study.folder / unit / "scores" / "last" / DRAWN.name)]


def test_a_complete_study_has_all_parts(made_up):
    text = (made_up.folder / "report.md").read_text()
    assert [title for title, _ in PARTS if f"\n## {title}\n" in text] == [title for title, _ in PARTS]


def test_every_figure_exists_and_is_in_the_html(made_up):
    text = (made_up.folder / "report.md").read_text()
    files = [part.split(")")[0] for part in text.split("](")[1:]]
    assert files
    assert all((made_up.folder / file).is_file() for file in files)
    assert (made_up.folder / "report.html").read_text().count("data:image/png;base64,") == len(files)


def test_accuracy_is_the_mean_over_runs_and_prompts(made_up):
    runs = [rights(made_up, f"runs/uno/{pair.name}") for pair in made_up.pairs(made_up.arm("uno"))]
    stated = numbers(made_up)["parts"]["Accuracy"][DRAWN.name]["uno"]
    assert stated["accuracy"][0] == pytest.approx(np.mean(runs))
    assert f"{100 * np.mean(runs):.1f} (" in section(made_up, "Accuracy")


def test_differences_are_of_the_pairs_that_both_arms_have(made_up):
    pairs = [pair.name for pair in made_up.pairs(made_up.arm("reca"))]
    expected = np.mean(
        [np.subtract(rights(made_up, f"runs/reca/{p}"), rights(made_up, f"runs/sft/{p}"), dtype=float) for p in pairs]
    )
    stated = numbers(made_up)["parts"]["Accuracy"][DRAWN.name]["reca"]["difference"]
    assert stated[0] == pytest.approx(expected)


def test_runs_are_compared_with_the_base_that_they_started_from(made_up):
    of, before = measured(made_up, "uno", DRAWN), measured(made_up, BEFORE, DRAWN)
    assert of is not None
    assert before is not None
    difference = of.difference(before)
    assert difference is not None
    row = difference.pairs.index(Pair(1, 0))
    np.testing.assert_array_equal(difference.right[row], of.right[of.pairs.index(Pair(1, 0))] - before.right[1])


def test_categories_have_their_own_records(made_up):
    lines = lines_of(made_up.folder / "runs/sft/b0s0/scores/last" / DRAWN.name)
    of = [line["right"] for line in lines if line["category"] == "counting"]
    found = measured(made_up, "sft", DRAWN)
    assert found is not None
    mask = found.where(lambda line: line["category"] == "counting")
    assert found.right[found.pairs.index(Pair(0, 0))][mask].mean() == np.mean(of)


def test_an_unfinished_study_reports_what_is_done(tmp_path):
    study = make_up(tmp_path, without="runs/uno")
    write_report(study)
    assert "The report is incomplete" in (tmp_path / "report.md").read_text()
    assert numbers(study)["parts"]["Accuracy"][DRAWN.name].keys() == {"base", "sft", "reca"}


def test_a_study_of_which_nothing_is_done_has_a_report_without_parts(tmp_path):
    study = Study(CONFIG, tmp_path)
    write_report(study)
    assert numbers(study)["parts"] == {}


def test_one_run_of_each_arm_is_said_to_have_intervals_over_prompts_only(tmp_path):
    base = dataclasses.replace(CONFIG.base, count=1)
    study = make_up(tmp_path, dataclasses.replace(CONFIG, base=base, seeds=1))
    write_report(study)
    assert "over prompts only" in section(study, "Accuracy")
    assert "What can be resolved" not in (Path(tmp_path) / "report.md").read_text()
