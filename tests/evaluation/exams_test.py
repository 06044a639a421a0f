"""Exams: published files to questions, and answers to official averages, on cases that were computed by hand."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.helpers.published_exams import (
    SHORT,
    write_mmbench,
    write_mme,
    write_mmmu,
    write_pope,
    write_textvqa,
)
from uno_jax.evaluation.benchmark import BenchmarkError
from uno_jax.evaluation.understanding.long_answers import chosen_option, final_answer, is_right
from uno_jax.evaluation.understanding.pope import says_no
from uno_jax.evaluation.understanding.registry import EXAMS
from uno_jax.evaluation.understanding.short_answers import comparable, first_option, soft_accuracy

LETTER = "Answer with the option's letter from the given choices directly."


def marked(name: str, path: Path, answers: list[str]) -> dict[str, float]:
    """Returns the averages of an exam with the given answers, in the order of the questions."""
    items = EXAMS[name].read(path).items
    return dict(EXAMS[name].mark(items, dict(zip([item.id for item in items], answers, strict=True))).averages)


def written(name: str, path: Path, answers: list[str], out: Path) -> Path:
    items = EXAMS[name].read(path).items
    EXAMS[name].write(out, items, dict(zip([item.id for item in items], answers, strict=True)))
    return out


def texts_of(name: str, path: Path) -> list[str]:
    return [item.text for item in EXAMS[name].read(path).items]


def test_every_exam_has_a_name_of_its_own():
    assert all(name == exam.name for name, exam in EXAMS.items())


def test_pope_asks_for_a_word_and_has_the_labels_of_its_subsets(tmp_path):
    items = EXAMS["pope"].read(write_pope(tmp_path)).items
    assert items[0].text == f"Is there a cup?\n{SHORT}"
    assert [item.answer for item in items] == ["yes", "no", "no", "yes"]
    assert items[0].pictures == (tmp_path / "val2014" / "a.png",)


def test_pope_is_the_mean_f1_of_subsets(tmp_path):
    found = marked("pope", write_pope(tmp_path), ["Yes", "yes", "no", "Yes."])
    # random: one right of two claimed, one present: F1 2/3. popular: nothing claimed or present: 0. adversarial: 1.
    assert found["F1, mean of subsets"] == pytest.approx(100 * (2 / 3 + 0 + 1) / 3)
    assert found["accuracy"] == 75.0
    assert found["share of yes"] == 75.0


def test_pope_results_are_in_the_format_of_its_scorer(tmp_path):
    out = written("pope", write_pope(tmp_path / "pope"), ["Yes", "No", "No", "Yes"], tmp_path)
    results = json.loads((out / "results.json").read_text())
    assert results[1] == {"question_id": 1, "text": "No", "text_orig": "No", "metadata": {}}


def test_a_question_of_pope_without_a_label_is_refused(tmp_path):
    write_pope(tmp_path)
    (tmp_path / "coco/coco_pope_popular.json").write_text(
        json.dumps({"question_id": 1, "image": "b.png", "text": "Is there a dog?", "label": "no"})
    )
    with pytest.raises(BenchmarkError, match="no label of subset 'popular' is for b.png and 'Is there a cup\\?'"):
        EXAMS["pope"].read(tmp_path)


@pytest.mark.parametrize(
    ("answer", "no"),
    [("No, it is not", True), ("There is not. Yes", True), ("Nothing", False), ("Yes. No", False), ("", False)],
)
def test_pope_reads_no_from_the_first_sentence(answer, no):
    assert says_no(answer) is no


def test_mme_adds_accuracy_and_pairs_of_each_task(tmp_path):
    path = write_mme(tmp_path)
    assert texts_of("mme", path)[0] == f"Is this a cup? Please answer yes or no. {SHORT}"
    found = marked("mme", path, ["Yes", "No, a dog", "True", "maybe no"])
    # existence: 100 + 100. code_reasoning: one of two right, no pair.
    assert found == {"perception + cognition": 250.0, "perception": 200.0, "cognition": 50.0}


def test_mme_results_are_its_files_with_a_fourth_column(tmp_path):
    out = written("mme", write_mme(tmp_path / "mme"), ["Yes", "No", "Yes", "False"], tmp_path)
    lines = (out / "results/code_reasoning.txt").read_text().splitlines()
    assert lines[1].split("\t") == ["1.png", "Is this a cat? Please answer yes or no.", "No", "no"]


def test_mmbench_counts_a_question_if_it_is_right_in_all_orders(tmp_path):
    path = write_mmbench(tmp_path / "data")
    assert texts_of("mmbench", path)[0] == f"Look.\nWhat is it?\nA. a cup\nB. a cat\n{LETTER}"
    assert marked("mmbench", path, ["A", "C. above", "A"]) == {
        "questions right in all orders": 50.0,
        "rows right": pytest.approx(200 / 3),
    }


def test_mmbench_without_answers_has_a_table_and_no_score(tmp_path):
    path = write_mmbench(tmp_path / "data", answers=False)
    assert marked("mmbench", path, ["A", "C", "B"]) == {}


def test_mmbench_results_are_a_spreadsheet_for_its_server(tmp_path):
    out = written("mmbench", write_mmbench(tmp_path / "data"), ["A", "it is above", "B"], tmp_path)
    with zipfile.ZipFile(out / "results.xlsx") as archive:
        sheet = ElementTree.fromstring(archive.read("xl/worksheets/sheet1.xml"))
    name = {"m": "http://schemas.openxmlformats.org/spreadsheetml/2006/main"}
    rows = [["".join(cell.itertext()) for cell in row] for row in sheet.iterfind(".//m:row", name)]
    assert rows[0] == ["index", "question", "A", "B", "C", "D", "prediction", "answer", "split"]
    assert rows[2] == ["8", "Where, then?", "left", "right", "above", "", "C", "C", "dev"]


def test_a_damaged_picture_of_mmbench_is_named(tmp_path):
    path = write_mmbench(tmp_path / "data")
    file = path / "mmbench_dev_20230712.tsv"
    file.write_text(file.read_text().replace("iVBOR", "?????"))
    with pytest.raises(BenchmarkError, match="row 2: the picture is not in base64"):
        EXAMS["mmbench"].read(path)


def test_mmmu_shows_all_pictures_before_the_question(tmp_path):
    items = EXAMS["mmmu"].read(write_mmmu(tmp_path)).items
    assert [len(item.pictures) for item in items] == [2, 1]
    assert items[0].text == f"Which of <image 1> and <image 2>?\nA. the first\nB. the second\n{LETTER}"
    assert items[1].text == f"How many in <image 1>?\n{SHORT}"
    assert items[0].category == "Art_Theory"


@pytest.mark.parametrize(
    ("name", "answers"),
    [
        ("mmmu", ["B", "1200"]),
        ("mmmu_cot", ["It is not (A).\nFinal answer: (B)", "There are many.\nFinal answer: 1,200.0"]),
    ],
)
def test_mmmu_counts_letters_and_short_answers(tmp_path, name, answers):
    assert marked(name, write_mmmu(tmp_path), answers)["answers right"] == 100.0


def test_mmmu_guesses_nothing_unless_named(tmp_path):
    found = marked("mmmu", write_mmmu(tmp_path), ["neither", "7"])
    assert found == {"answers right": 0.0, "with a guess for answers without a letter": 25.0}


def test_mmmu_predictions_are_letters_by_id(tmp_path):
    out = written("mmmu", write_mmmu(tmp_path / "data"), ["B. the second", "1200"], tmp_path)
    assert json.loads((out / "prediction.json").read_text()) == {
        "validation_Art_Theory_1": "B",
        "validation_Art_Theory_2": "1200",
    }


def test_vqa_accuracy_leaves_out_one_person_at_a_time(tmp_path):
    path = write_textvqa(tmp_path)
    # Three of ten said stop: the mean of three times 2/3 and seven times 1.
    assert marked("textvqa", path, ["STOP", "2"])["VQA accuracy"] == pytest.approx(100 * (0.9 + 1) / 2)
    assert texts_of("textvqa", path)[0] == f"What is written? {SHORT}"


def test_vqa_with_one_answer_is_an_exact_match(tmp_path):
    assert marked("textvqa", write_textvqa(tmp_path, annotations=False), ["stop", "three"])["VQA accuracy"] == 50.0


def test_a_picture_outside_of_the_folder_is_refused(tmp_path):
    path = write_textvqa(tmp_path / "data")
    file = path / "textvqa_val.jsonl"
    file.write_text(file.read_text().replace("data/textvqa/train_images/a.png", "../a.png"))
    with pytest.raises(BenchmarkError, match="textvqa_val.jsonl:1: the picture '../a.png' is outside of the folder"):
        EXAMS["textvqa"].read(path)


def test_a_missing_picture_is_named(tmp_path):
    path = write_textvqa(tmp_path / "data")
    (path / "train_images/a.png").unlink()
    with pytest.raises(BenchmarkError, match="there is no picture .*train_images/a.png; put the pictures"):
        EXAMS["textvqa"].read(path)


def test_vqa_results_are_in_the_format_of_its_server(tmp_path):
    out = written("textvqa", write_textvqa(tmp_path / "data"), ["stop", "two"], tmp_path)
    assert json.loads((out / "results.json").read_text())[0] == {
        "question": "What is written?",
        "question_id": 34602,
        "answer": "stop",
    }


@pytest.mark.parametrize(
    ("answer", "form"),
    [
        ("The Two cats!", "2 cats"),
        ("dont know.", "don't know"),
        ("3.5", "3.5"),
        ("black/white", "black white"),
        ("1,200", "1200"),
        ("Tom's", "tom 's"),
        ("couldnt've", "couldn't've"),
    ],
)
def test_vqa_compares_plain_words(answer, form):
    assert comparable(answer) == form


def test_soft_accuracy_is_whole_from_four_people_on():
    assert soft_accuracy("a cup", ["cup"] * 4 + ["cat"] * 6) == 1.0
    assert soft_accuracy("dog", ["cup"] * 10) == 0.0


@pytest.mark.parametrize(
    ("answer", "letter"), [("B", "B"), ("B) a cat", "B"), ("it is a cat", "B"), ("neither", "neither"), ("", "")]
)
def test_the_first_option_of_a_direct_answer(answer, letter):
    assert first_option(answer, {"A": "a cup", "B": "a cat"}) == letter


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("(A) no, rather (B)", "B"),
        ("The answer is A.", "A"),
        ("I would say that it is a cat", "B"),
        ("B)", "B"),
        ("dunno", "dunno"),
    ],
)
def test_the_option_that_a_longer_answer_chooses(answer, letter):
    assert chosen_option(answer, {"A": "a cup", "B": "a cat"}) == letter


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("so it is.\nFinal answer: **B**", "B"),
        ("<think> Answer: A </think> B", "B"),
        ("Answer: A\nno.\nAnswer: B", "B"),
        ("just B", "just B"),
    ],
)
def test_the_final_answer_of_a_chain_of_thought(text, answer):
    assert final_answer(text) == answer


@pytest.mark.parametrize(
    ("answer", "right", "holds"),
    [
        ("the total is 12.004", ["12"], True),
        ("x = 1,200", ["1200"], True),
        ("it is a Gothic church", ["gothic"], True),
        ("about 12", ["13"], False),
        ("nice", ["c"], False),
    ],
)
def test_a_short_answer_of_mmmu_is_right_if_it_states_the_number_or_the_text(answer, right, holds):
    assert is_right(answer, right) is holds
