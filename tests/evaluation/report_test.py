"""`evaluate report`: a table over checkpoints and benchmarks, and a gallery."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.evaluate_command import fail, succeed
from tests.helpers.evaluated import write_evaluated
from uno_jax.evaluation.differences import interval

ITEMS = {"00000": "single_object", "00001": "counting"}


def write_score(out: Path, value: float, judge: str = "detector", scored: int = 2) -> Path:
    head = json.loads((out / "record.json").read_text())
    content = {
        "benchmark": head["benchmark"],
        "checkpoint": head["checkpoint"]["sha256"],
        "judge": judge,
        "averages": {"mean_of kinds": value},
        "categories": {},
        "items_scored": scored,
        "items_expected": 2,
        "items": {"00000": value},
    }
    (out / "score.json").write_text(json.dumps(content))
    return out


def report(out: Path, *runs: Path, more: tuple[str, ...] = ()) -> Path:
    succeed("report", *(f"--run={run}" for run in runs), f"--out={out}", *more)
    return out


@pytest.fixture
def two(tmp_path) -> tuple[Path, Path]:
    """Two models on the same prompts."""
    base = write_evaluated(tmp_path / "base", "geneval", ITEMS)
    uno = write_evaluated(tmp_path / "uno", "geneval", ITEMS, name="uno", colour=(30, 30, 200), thought="a plan")
    return write_score(base, 0.78), write_score(uno, 0.82, scored=1)


def test_a_table_has_a_row_per_average_and_a_column_per_model(two, tmp_path):
    table = (report(tmp_path / "report", *two) / "table.md").read_text()
    assert table.splitlines()[:3] == [
        "| benchmark | average | settings | judge | base | uno |",
        "| --- | --- | --- | --- | ---: | ---: |",
        "| geneval | mean_of kinds | bagel | detector | 0.7800 | 0.8200 (1 of 2) |",
    ]


def test_differences_are_over_paired_items(tmp_path):
    items = {str(number): "any" for number in range(4)}
    runs = [write_evaluated(tmp_path / name, "wise", items, name=name) for name in ("base", "uno")]
    for run, scores in zip(runs, ([0.0, 0.5, 0.5, 1.0], [0.5, 1.0, 1.0, None]), strict=True):
        write_score(run, 0.5)
        content = json.loads((run / "score.json").read_text())
        content["items"] = {str(number): score for number, score in enumerate(scores) if score is not None}
        (run / "score.json").write_text(json.dumps(content))
    out = report(tmp_path / "report", *runs)
    assert (
        "| wise | bagel | detector | uno - base | 3 | +0.5000 | +0.5000 | +0.5000 |" in (out / "table.md").read_text()
    )
    [difference] = json.loads((out / "table.json").read_text())["differences"]
    assert (difference["items"], difference["value"]) == (3, pytest.approx(0.5))


def test_the_interval_of_a_difference_covers_its_mean(tmp_path):
    pairs = np.array([0.0, 1.0] * 50)
    low, high = interval(pairs)
    # The standard error is 0.05, so that the interval is about 0.4 to 0.6.
    assert (low, high) == (pytest.approx(0.4, abs=0.03), pytest.approx(0.6, abs=0.03))


def test_numbers_of_other_judges_or_settings_are_in_other_rows(tmp_path):
    one = write_score(write_evaluated(tmp_path / "1", "geneval", ITEMS), 0.1)
    two = write_score(write_evaluated(tmp_path / "2", "geneval", ITEMS, name="uno"), 0.2, judge="other")
    three = write_score(write_evaluated(tmp_path / "3", "geneval", ITEMS, changes={"timesteps": 25}), 0.3)
    table = (report(tmp_path / "report", one, two, three) / "table.md").read_text()
    assert [[cell.strip() for cell in line.split("|")[3:-1]] for line in table.splitlines()[2:]] == [
        ["bagel", "detector", "0.1000", ""],
        ["bagel", "other", "", "0.2000"],
        ["bagel, timesteps=25", "detector", "0.3000", ""],
    ]


def test_folders_without_a_score_are_named(tmp_path):
    run = write_evaluated(tmp_path / "base", "geneval", ITEMS)
    table = (report(tmp_path / "report", run) / "table.md").read_text()
    assert table == "Not scored yet:\n\n- geneval, base, bagel: 2 of 2 pictures made\n"


def test_csv_and_json_have_a_line_per_number(two, tmp_path):
    out = report(tmp_path / "report", *two)
    with (out / "table.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["model"], line["value"], line["scored"]) for line in lines] == [
        ("base", "0.78", "2"),
        ("uno", "0.82", "1"),
    ]
    content = json.loads((out / "table.json").read_text())
    assert [number["value"] for number in content["numbers"]] == [0.78, 0.82]
    assert content["runs"][1]["record"]["checkpoint"]["name"] == "uno"


def test_latex_is_escaped(two, tmp_path):
    table = (report(tmp_path / "report", *two) / "table.tex").read_text()
    assert r"geneval & mean\_of kinds & bagel & detector & 0.7800 & 0.8200 (1 of 2) \\" in table


def gallery_data(out: Path) -> dict:
    page = (out / "gallery.html").read_text()
    return json.loads(re.search(r'type="application/json">(.*)</script>', page)[1])


def test_the_gallery_shows_the_pictures_of_a_prompt_and_seed_side_by_side(two, tmp_path):
    data = gallery_data(report(tmp_path / "report", *two))
    assert data["models"] == ["base, bagel", "uno, bagel"]
    assert [entry["item"] for entry in data["entries"]] == ["00000", "00001"]
    entry = data["entries"][0]
    assert (entry["prompt"], entry["category"]) == ("prompt of 00000", "single_object")
    assert entry["pictures"]["base, bagel"]["scores"] == {"detector": 0.78}
    assert entry["pictures"]["uno, bagel"]["thought"] == "a plan"
    images = {picture["image"] for picture in entry["pictures"].values()}
    assert len(images) == 2
    assert all(image.startswith("data:image/jpeg;base64,") for image in images)


def test_the_gallery_needs_no_other_file(two, tmp_path):
    page = (report(tmp_path / "report", *two) / "gallery.html").read_text()
    assert "http" not in page
    assert "src=" not in page


def test_edits_have_their_source(tmp_path):
    run = write_evaluated(tmp_path / "base", "gedit_en", {"style/a": "style"}, source="sources/style/a.png")
    [entry] = gallery_data(report(tmp_path / "report", run))["entries"]
    assert entry["source"].startswith("data:image/jpeg;base64,")


def test_a_prompt_cannot_end_the_script(tmp_path):
    run = write_evaluated(tmp_path / "base", "geneval", ITEMS, prompt="</script><b>")
    assert gallery_data(report(tmp_path / "report", run))["entries"][0]["prompt"] == "</script><b> 00000"
    assert "</script><b>" not in (tmp_path / "report/gallery.html").read_text()


def test_the_gallery_has_evenly_spaced_prompts(tmp_path):
    run = write_evaluated(tmp_path / "base", "wise", {str(number): "any" for number in range(9)})
    data = gallery_data(report(tmp_path / "report", run, more=("--gallery=3",)))
    assert [entry["item"] for entry in data["entries"]] == ["0", "4", "8"]


def test_models_of_one_name_are_told_apart(tmp_path):
    one = write_evaluated(tmp_path / "1", "geneval", ITEMS)
    about = {"name": "base", "sha256": "f" * 64, "ema": True, "files": []}
    two = write_evaluated(tmp_path / "2", "geneval", ITEMS, checkpoint=about)
    models = gallery_data(report(tmp_path / "report", one, two))["models"]
    assert models == ["base (62617365, float32), bagel", "base (EMA, ffffffff, float32), bagel"]


def test_other_prompts_are_refused(tmp_path):
    one = write_evaluated(tmp_path / "1", "geneval", ITEMS)
    two = write_evaluated(tmp_path / "2", "geneval", ITEMS, name="uno", prompt="another")
    message = fail("report", f"--run={one}", f"--run={two}", f"--out={tmp_path / 'report'}")
    assert "item 00000 of geneval is 'another 00000', but 'prompt of 00000' in another folder" in message


def test_the_same_run_twice_is_refused(tmp_path):
    run = write_evaluated(tmp_path / "1", "geneval", ITEMS)
    message = fail("report", f"--run={run}", f"--run={run}", f"--out={tmp_path / 'report'}")
    assert "are the same benchmark, checkpoint and settings" in message


def test_a_score_of_other_pictures_is_refused(tmp_path):
    run = write_score(write_evaluated(tmp_path / "1", "geneval", ITEMS), 0.5)
    write_evaluated(run, "geneval", ITEMS, name="uno")
    assert "belongs to other pictures" in fail("report", f"--run={run}", f"--out={tmp_path / 'report'}")
