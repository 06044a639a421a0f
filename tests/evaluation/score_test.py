"""`evaluate score`: the official averages, on cases that were computed by hand."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest

from tests.helpers.evaluate_command import fail, succeed
from tests.helpers.evaluated import write_evaluated
from uno_jax.evaluation.spreadsheet import write_xlsx


def score(out: Path, results: Path, *more: str) -> dict:
    succeed("score", f"--out={out}", f"--results={results}", *more)
    return json.loads((out / "score.json").read_text())


def failing(out: Path, results: Path) -> str:
    return fail("score", f"--out={out}", f"--results={results}")


def write_lines(file: Path, lines: list[dict]) -> Path:
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return file


GENEVAL = {"00000": "single_object", "00001": "counting", "00002": "counting"}


def geneval_line(item: str, sample: int, correct: bool, tag: str = "") -> dict:
    return {
        "filename": f"images/{item}/samples/{sample:05d}.png",
        "tag": tag or GENEVAL[item],
        "prompt": "any",
        "correct": correct,
        "reason": "",
        "metadata": "{}",
        "details": "{}",
    }


def test_geneval_is_the_mean_of_kinds_each_a_mean_over_images(tmp_path):
    out = write_evaluated(tmp_path / "out", "geneval", GENEVAL, samples=2)
    correct = {"00000": [True, True], "00001": [True, False], "00002": [False, False]}
    lines = [geneval_line(item, k, value) for item, values in correct.items() for k, value in enumerate(values)]
    found = score(out, write_lines(tmp_path / "results.jsonl", lines), "--judge=detector 1")
    # Kinds: 2/2 and 1/4. Images: 3 of 6. Prompts with a correct image: 2 of 3.
    assert found["averages"] == {
        "mean of kinds": pytest.approx(0.625),
        "mean of images": pytest.approx(0.5),
        "prompts with a correct image": pytest.approx(2 / 3),
    }
    assert found["categories"] == {"single_object": 1.0, "counting": 0.25}
    assert found["items"] == {"00000": 1.0, "00001": 0.5, "00002": 0.0}
    assert (found["items_scored"], found["items_expected"], found["judge"]) == (3, 3, "detector 1")


def test_items_without_a_result_are_counted(tmp_path):
    out = write_evaluated(tmp_path / "out", "geneval", GENEVAL)
    found = score(out, write_lines(tmp_path / "results.jsonl", [geneval_line("00001", 0, True)]))
    assert (found["items_scored"], found["items_expected"]) == (1, 3)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([geneval_line("00000", 0, True, "position")], "item 00000 has 'single_object'"),
        ([{**geneval_line("00000", 0, True), "filename": "99999/samples/0.png"}], "is no item of this folder"),
        ([{**geneval_line("00000", 0, True), "correct": "yes"}], "correct is 'yes': expected true or false"),
    ],
)
def test_results_of_other_pictures_are_refused(tmp_path, lines, message):
    out = write_evaluated(tmp_path / "out", "geneval", GENEVAL)
    assert message in failing(out, write_lines(tmp_path / "results.jsonl", lines))
    assert not (out / "score.json").exists()


def test_dpg_is_the_mean_over_images_of_the_mean_over_crops(tmp_path):
    out = write_evaluated(tmp_path / "out", "dpg", {"1": "numbered", "2": "numbered", "vrd3": "vrd"})
    results = tmp_path / "dpg-bench_1_results.txt"
    results.write_text(
        "some, folder/1.png, 1.0, 0.5, 0.5, 0.0, 0.5\n"
        "some, folder/2.png, 1.0, 1.0, 1.0, 1.0, 1.0\n"
        "Model: images\nL1 category scores:\n\tentity: 12.5\nDPG-Bench score: 75.0\n"
    )
    found = score(out, results)
    assert found["averages"] == {
        "mean of scored images": pytest.approx(75.0),
        "unscored images as 0": pytest.approx(50.0),
    }
    assert found["items"] == {"1": 50.0, "2": 100.0}
    assert (found["items_scored"], found["items_expected"]) == (2, 3)


def wise_line(number: int, ratings: tuple[float, float, float]) -> dict:
    names = ("consistency", "realism", "aesthetic_quality")
    return {"prompt_id": number, "Subcategory": "any", **dict(zip(names, ratings, strict=True))}


def test_wise_weighs_ratings_and_groups(tmp_path):
    ratings = {
        1: (2, 2, 2),
        2: (0, 0, 0),
        401: (2, 0, 0),
        568: (0, 2, 0),
        701: (0, 0, 2),
        801: (1, 1, 1),
        901: (2, 2, 0),
    }
    out = write_evaluated(tmp_path / "out", "wise", {str(number): "any" for number in ratings})
    lines = [wise_line(number, each) for number, each in ratings.items()]
    found = score(out, write_lines(tmp_path / "scores.jsonl", lines))
    groups = {"culture": 0.5, "time": 0.7, "space": 0.2, "biology": 0.1, "physics": 0.5, "chemistry": 0.9}
    assert found["categories"] == pytest.approx(groups)
    # 0.4 * 0.5 + 0.167 * 0.7 + 0.133 * 0.2 + 0.1 * (0.1 + 0.5 + 0.9) = 0.2 + 0.1169 + 0.0266 + 0.15
    assert found["averages"]["official weights"] == pytest.approx(0.4935)
    assert found["averages"]["equal weights (BAGEL's copy)"] == pytest.approx(2.9 / 6)


@pytest.mark.parametrize("rating", [999, 9.9])
def test_a_failed_judgement_of_wise_is_counted_and_no_score(tmp_path, rating):
    out = write_evaluated(tmp_path / "out", "wise", {"1": "any", "2": "any"})
    lines = [wise_line(1, (2, 2, 2)), wise_line(2, (rating, rating, rating))]
    found = score(out, write_lines(tmp_path / "scores.jsonl", lines))
    assert found["averages"]["mean of images"] == pytest.approx(1.0)
    assert (found["items_scored"], found["failed"]) == (1, 1)


GEDIT = {"color_alter/a": "color_alter", "color_alter/b": "color_alter", "subject-add/c": "subject-add"}


def write_gedit_results(folder: Path, ratings: dict[str, tuple[object, object, bool]]) -> Path:
    folder.mkdir()
    head = "source_image,edited_image,instruction,sementics_score,quality_score,intersection_exist,instruction_language"
    for task in {key.split("/")[0] for key in ratings}:
        lines = [head]
        for key, (semantics, quality, common) in ratings.items():
            if key.startswith(f"{task}/"):
                file = f"save/base/fullset/{task}/en/{key.split('/')[1]}.png"
                lines.append(f'x.png,{file},"green, please",{semantics},{quality},{common},en')
        (folder / f"base_{task}_gpt_score.csv").write_text("\n".join(lines))
    return folder


def test_gedit_is_the_mean_of_kinds_of_geometric_means(tmp_path):
    out = write_evaluated(tmp_path / "out", "gedit_en", GEDIT)
    ratings = {"color_alter/a": (4, 9, True), "color_alter/b": (0, 8, False), "subject-add/c": (8, 8, True)}
    found = score(out, write_gedit_results(tmp_path / "results", ratings))
    # O: 6, 0 and 8. Kinds: 3 and 8; in the intersection 6 and 8.
    averages = {
        "O": 5.5,
        "SC": 5.0,
        "PQ": 8.25,
        "O, intersection": 7.0,
        "SC, intersection": 6.0,
        "PQ, intersection": 8.5,
        "O, mean of edits": 14 / 3,
    }
    assert found["averages"] == pytest.approx(averages)
    assert list(found["averages"])[0] == "O"
    assert found["items"]["color_alter/a"] == pytest.approx(math.sqrt(36))


def test_an_edit_of_gedit_without_ratings_is_counted_and_no_score(tmp_path):
    out = write_evaluated(tmp_path / "out", "gedit_en", GEDIT)
    ratings = {"color_alter/a": (4, 9, True), "subject-add/c": ("nan", "", True)}
    found = score(out, write_gedit_results(tmp_path / "results", ratings))
    assert found["averages"]["O"] == pytest.approx(6.0)
    assert (found["items_scored"], found["failed"], found["items_expected"]) == (1, 1, 3)


def test_imgedit_averages_edits_and_kinds(tmp_path):
    out = write_evaluated(tmp_path / "out", "imgedit", {"1": "add", "2": "add", "3": "remove", "4": "remove"})
    answers = {
        "1": "Brief reasoning: good.\nPrompt Compliance: 5\nVisual Seamlessness: 4\nPhysical & Detail Fidelity: 3",
        "2": "**Prompt Compliance:** 2\n**Visual Seamlessness:** 2/5\n- Physical & Detail Fidelity: 2.",
        "3": "Prompt Compliance: 1\nVisual Seamlessness: 1\nPhysical & Detail Fidelity: 1\n",
        "4": {"error": "timeout"},
    }
    results = tmp_path / "result.json"
    results.write_text(json.dumps(answers))
    found = score(out, results)
    # Edits: 4, 2 and 1. Kinds: 3 and 1.
    assert found["averages"] == {
        "mean of edits (BAGEL's copy)": pytest.approx(7 / 3),
        "mean of kinds": pytest.approx(2.0),
    }
    assert (found["items_scored"], found["failed"], found["items_expected"]) == (3, 1, 4)
    assert found["words"] == {key: answers[key] for key in ("1", "2", "3")}


def test_geneval2_averages_questions_of_a_prompt_in_both_ways(tmp_path):
    out = write_evaluated(tmp_path / "out", "geneval2", {"00000": "3 atoms", "00001": "10 atoms"})
    results = tmp_path / "score_lists.json"
    results.write_text(json.dumps([[0.25, 1.0], [0.0, 0.5, 1.0]]))
    found = score(out, results)
    # AM: 62.5 and 50. GM: 50 and 0.
    assert found["averages"] == {"Soft-TIFA AM": pytest.approx(56.25), "Soft-TIFA GM": pytest.approx(25.0)}
    assert found["categories"] == {"3 atoms": pytest.approx(50.0), "10 atoms": 0.0}
    assert found["items"] == {"00000": pytest.approx(62.5), "00001": pytest.approx(50.0)}
    results.write_text(json.dumps([[0.25, 1.0]]))
    assert "a list of 1, expected one of 2 prompts as in this folder" in failing(out, results)
    results.write_text(json.dumps([0.25, 0.5]))
    assert "entry 0 is not a list of probabilities" in failing(out, results)


def test_geneval2_averages_all_questions_of_a_skill(tmp_path):
    questions = {"00000": ("count", "object"), "00001": ("object", "verb", "object")}
    out = write_evaluated(tmp_path / "out", "geneval2", {"00000": "3 atoms", "00001": "3 atoms"}, questions=questions)
    results = tmp_path / "score_lists.json"
    results.write_text(json.dumps([[0.25, 1.0], [0.0, 0.5, 0.5]]))
    # object: 1, 0 and 0.5.
    assert score(out, results)["categories"] == pytest.approx({"3 atoms": 25, "count": 25, "object": 50, "verb": 50})
    results.write_text(json.dumps([[0.25, 1.0], [0.0, 0.5]]))
    assert "entry 1 has 2 probabilities, but its prompt has 3 questions" in failing(out, results)


def test_kris_pools_all_ratings_of_a_dimension(tmp_path):
    items = {"physics/1": "physics", "biology/1": "biology", "color_change/1": "color_change"}
    out = write_evaluated(tmp_path / "out", "kris", items)
    common = {"consistency_score": 5, "quality_score": 5, "instruction_score": 5}
    results = {
        "physics": {"1": {**common, "knowledge_score": 1}},
        "biology": {"1": {**common, "quality_score": None, "knowledge_score": 2}},
        "color_change": {"1": {**common, "instruction_score": 1, "knowledge_score": 1}},
    }
    for category, content in results.items():
        (tmp_path / "results" / category).mkdir(parents=True)
        (tmp_path / "results" / category / "metrics.json").write_text(json.dumps(content))
    found = score(out, tmp_path / "results")
    # natural science: 5 5 5 1, 5 5 2: mean 4. color change has no knowledge: 5 5 1. All: 39 / 10.
    assert found["categories"] == pytest.approx({"attribute perception": 25 * (11 / 3 - 1), "natural science": 75.0})
    assert found["averages"]["overall, (s - 1) x 25"] == pytest.approx(72.5)
    assert found["averages"]["overall, s x 20"] == pytest.approx(78.0)
    assert found["averages"]["conceptual knowledge"] == pytest.approx(75.0)
    assert (found["items_scored"], found["failed"]) == (3, 1)


RISE = {"t1": "temporal_reasoning", "t2": "causal_reasoning", "t3": "spatial_reasoning", "l1": "logical_reasoning"}


def write_rise_results(folder: Path, rows: list[list[str | int]]) -> Path:
    head = ["index", "category", "Reasoning", "ApprConsistency", "VisualPlausibility", "match_log"]
    folder.mkdir()
    write_xlsx(folder / "base_judge.xlsx", [head, *rows])
    return folder


def test_rise_is_the_share_of_edits_with_full_ratings(tmp_path):
    out = write_evaluated(tmp_path / "out", "rise", RISE)
    rows = [
        ["t1", "temporal_reasoning", 1, 5, 5, "succeed"],
        ["t2", "causal_reasoning", 5, "", 5, "succeed"],
        ["t3", "spatial_reasoning", "", "", "", "failed"],
        ["l1", "logical_reasoning", 3, 5, "", "succeed"],
    ]
    found = score(out, write_rise_results(tmp_path / "results", rows))
    # t1: (1.5 + 0.5 + 1) / 2; t2, whose consistency is not judged: 5; l1: 1.5 + 2.1.
    assert found["averages"] == {
        "accuracy": pytest.approx(100 / 3),
        "accuracy, official": pytest.approx(0.0),
        "score, (s - 1) x 25": pytest.approx(25 * ((1.5 + 5 + 3.6) / 3 - 1)),
        # t1: max(1, (0.8 + 1) / 2).
        "score without consistency, (s - 1) x 25": pytest.approx(25 * ((1 + 5 + 3.6) / 3 - 1)),
    }
    assert (found["items_scored"], found["failed"], found["items_expected"]) == (3, 1, 4)


def test_a_rating_of_rise_out_of_range_is_refused(tmp_path):
    out = write_evaluated(tmp_path / "out", "rise", RISE)
    results = write_rise_results(tmp_path / "results", [["t1", "temporal_reasoning", 7, 5, 5, "succeed"]])
    assert "row 2: Reasoning is '7': expected a number from 1 to 5" in failing(out, results)


def write_unigen_results(file: Path, results: dict[str, dict | None]) -> Path:
    with file.open("w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(["index", "prompt", "testpoint", "output", "result_json", "img_path"])
        for name, result in results.items():
            points = [] if result is None else result["testpoint"]
            row = [
                "any",
                str(points),
                "",
                "" if result is None else json.dumps(result),
                f"eval_data/en/base/{name}.png",
            ]
            writer.writerow([name.split("_")[0], *row])
    return file


def test_unigen_is_the_mean_of_primary_dimensions_each_over_its_test_points(tmp_path):
    out = write_evaluated(tmp_path / "out", "unigen_en", {"0": "any", "1": "any"}, samples=4)
    colours = ["Attribute - Color", "Attribute - Size"]
    results = {
        "0_0": {"testpoint": colours, "score": [1, 0]},
        "0_1": {"testpoint": colours, "score": [1, 1]},
        "1_0": {"testpoint": ["Style"], "score": [0]},
        "1_1": {"testpoint": ["Style"], "score": [1, 1]},
        "1_2": None,
    }
    found = score(out, write_unigen_results(tmp_path / "base_en.csv", results))
    assert found["averages"] == {
        "mean of primary dimensions": pytest.approx(37.5),
        "mean of test points": pytest.approx(60.0),
    }
    assert found["categories"] == {
        "Attribute": 75.0,
        "Style": 0.0,
        "Attribute - Color": 100.0,
        "Attribute - Size": 50.0,
    }
    assert (found["pictures_scored"], found["failed"], found["pictures_expected"]) == (3, 2, 8)


def test_a_folder_without_a_record_is_refused(tmp_path):
    assert "there is no record.json" in failing(tmp_path, tmp_path / "results.jsonl")


def test_a_benchmark_without_arithmetic_is_refused(tmp_path):
    out = write_evaluated(tmp_path / "out", "wise_verified", {"1": "any"})
    assert "results of wise_verified cannot be averaged here" in failing(out, tmp_path)
