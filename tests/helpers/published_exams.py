"""Tiny exams in the formats of public benchmarks, with made-up content."""

from __future__ import annotations

import base64
import csv
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
from absl import flags

from tests.helpers.made_up_records import make_record
from tests.helpers.published import encoded_picture
from uno_jax.data.records import write_records

SHORT = "Answer the question using a single word or phrase."


def write_dataset(folder: Path) -> Path:
    """Writes a prepared dataset whose split `test` has three questions and two captioned pictures."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # grain reads them
    tasks = ["understanding", "text_to_image", "understanding", "editing", "text_to_image", "understanding"]
    records = [make_record(number, task) for number, task in enumerate(tasks)]
    write_records(
        folder,
        "made_up",
        {"train": lambda: records, "test": lambda: records},
        description="made up",
        license_text="none",
    )
    return folder


def write_picture(file: Path, colour: tuple[int, int, int] = (200, 30, 30)) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(encoded_picture(colour))


POPE = [
    ("random", "a.png", "Is there a cup?", "yes"),
    ("random", "a.png", "Is there a cat?", "no"),
    ("popular", "b.png", "Is there a cup?", "no"),
    ("adversarial", "b.png", "Is there a cat?", "yes"),
]


def write_pope(folder: Path) -> Path:
    """Writes four questions of three subsets. Returns the folder."""
    (folder / "coco").mkdir(parents=True)
    lines = [
        {"question_id": number, "image": image, "text": f"{question}\n{SHORT}", "category": subset}
        for number, (subset, image, question, _) in enumerate(POPE)
    ]
    write_lines(folder / "llava_pope_test.jsonl", lines)
    for subset in ("random", "popular", "adversarial"):
        labels = [
            {"question_id": number + 1, "image": image, "text": question, "label": label}
            for number, (own, image, question, label) in enumerate(POPE)
            if own == subset
        ]
        write_lines(folder / "coco" / f"coco_pope_{subset}.json", labels)
    for name in ("a.png", "b.png"):
        write_picture(folder / "val2014" / name)
    return folder


def write_lines(file: Path, lines: list[dict]) -> None:
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def write_mme(folder: Path) -> Path:
    """Writes two tasks, each with a picture and its two questions. Returns the folder of the questions."""
    for task, inner in (("existence", ""), ("code_reasoning", "images")):
        write_picture(folder / "MME_Benchmark_release_version" / task / inner / "1.png")
        lines = [f"1.png\tIs this {thing}? Please answer yes or no.\t{answer}\n" for thing, answer in MME]
        (folder / "Your_Results").mkdir(parents=True, exist_ok=True)
        (folder / "Your_Results" / f"{task}.txt").write_text("".join(lines))
    return folder


MME = [("a cup", "Yes"), ("a cat", "No")]


def write_mmbench(folder: Path, *, answers: bool = True) -> Path:
    """Writes two questions, the first of which is asked again with its options turned. Returns the folder."""
    folder.mkdir(parents=True)
    picture = base64.b64encode(encoded_picture((200, 30, 30))).decode()
    rows = [
        {"index": 7, "question": "What is it?", "hint": "Look.", "A": "a cup", "B": "a cat", "answer": "A"},
        {"index": 8, "question": "Where, then?", "A": "left", "B": "right", "C": "above", "answer": "C"},
        {"index": 1_000_007, "question": "What is it?", "hint": "Look.", "A": "a cat", "B": "a cup", "answer": "B"},
    ]
    names = ["index", "question", "hint", "A", "B", "C", "D", "answer", "category", "image", "source", "l2-category"]
    with (folder / "mmbench_dev_20230712.tsv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*names, "comment", "split"], delimiter="\t", restval="")
        writer.writeheader()
        for row in rows:
            shown = picture if row["index"] < 1_000_000 else str(row["index"] - 1_000_000)
            kept = row if answers else {name: value for name, value in row.items() if name != "answer"}
            writer.writerow({**kept, "image": shown, "category": "recognition", "split": "dev"})
    return folder


def write_mmmu(folder: Path) -> Path:
    """Writes a question with options and two pictures, and one with a short answer. Returns the folder."""
    (folder / "Art").mkdir(parents=True)
    picture = {"bytes": encoded_picture((200, 30, 30)), "path": "a.png"}
    empty = dict.fromkeys([f"image_{number}" for number in range(1, 8)])
    rows = [
        {
            **empty,
            "id": "validation_Art_Theory_1",
            "question": "Which of <image 1> and <image 2>?",
            "options": "['the first', 'the second']",
            "answer": "B",
            "question_type": "multiple-choice",
            "image_1": picture,
            "image_2": picture,
        },
        {
            **empty,
            "id": "validation_Art_Theory_2",
            "question": "How many in <image 1>?",
            "options": "[]",
            "answer": "['1,200', 'twelve hundred']",
            "question_type": "open",
            "image_1": picture,
        },
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "Art" / "validation-00000-of-00001.parquet")
    return folder


def write_textvqa(folder: Path, *, annotations: bool = True) -> Path:
    """Writes two questions with the answers of ten people, or one answer in each line. Returns the folder."""
    lines = [
        {"image": f"data/textvqa/train_images/{name}.png", "question": "What is written?", "question_id": number}
        for number, name in ((34602, "a"), (34603, "b"))
    ]
    people = {34602: ["stop"] * 2 + ["Stop!"] + ["go"] * 7, 34603: ["two"] * 10}
    for line in lines:
        write_picture(folder / "train_images" / Path(line["image"]).name)
        if not annotations:
            line["answer"] = people[line["question_id"]][0]
    write_lines(folder / "textvqa_val.jsonl", lines)
    if annotations:
        content = [
            {"question_id": number, "answers": [{"answer": answer, "answer_id": 1} for answer in answers]}
            for number, answers in people.items()
        ]
        (folder / "textvqa_val_annotations.json").write_text(json.dumps({"annotations": content}))
    return folder
