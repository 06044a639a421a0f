"""`evaluate score --scorer`: packages from PyPI, run as processes in environments of their own.

The packages here are made up: they have the calls of the real ones, and no weights. What was tried with real ones is in
`docs/evaluation.md`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers.evaluate_command import fail, succeed
from tests.helpers.evaluated import write_evaluated
from uno_jax.evaluation.scorers.program import SCORERS

ITEMS = {"00000": "single_object", "00001": "counting"}
PACKAGES = {
    "ImageReward": """
from PIL import Image
class Model:
    def score(self, prompt, image):
        '''The share of red in the first pixel, plus 1 for the first prompt.'''
        return Image.open(image).getpixel((0, 0))[0] / 255 + prompt.endswith("00000")
def load(name):
    assert name == "ImageReward-v1.0", name
    return Model()
""",
    "hpsv3": """
class HPSv3RewardInferencer:
    def __init__(self, checkpoint_path=None):
        pass
    def reward(self, image_paths, prompts):
        return [[float("nan") if prompt.endswith("00001") else 7.5, 1.0] for prompt in prompts]
""",
    "t2v_metrics": """
class VQAScore:
    def __init__(self, model):
        raise OSError(f"cannot reach the hub for {model}")
""",
    "torch_fidelity": """
from pathlib import Path
def calculate_metrics(input1, input2, kid_subset_size, **other):
    assert kid_subset_size == 2
    counted = [len(list(Path(folder).rglob("*.*"))) for folder in (input1, input2)]
    return {
        "frechet_inception_distance": float(counted[0]),
        "kernel_inception_distance_mean": float(counted[1]),
        "kernel_inception_distance_std": 0.0,
    }
""",
    "torch": "class cuda: is_available = staticmethod(lambda: False)",
}


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """The Python of an environment with the made-up packages."""
    folder: Path = tmp_path_factory.mktemp("environment")
    for name, text in PACKAGES.items():
        (folder / f"{name}.py").write_text(text)
    file = folder / "python"
    file.write_text(f'#!/bin/sh\nPYTHONPATH={folder} exec {sys.executable} "$@"\n')
    file.chmod(0o755)
    return file


@pytest.fixture
def out(tmp_path) -> Path:
    return write_evaluated(tmp_path / "base", "geneval", ITEMS, samples=2, colour=(51, 0, 0))


def score(out: Path, scorer: str, python: Path, *more: str) -> dict:
    succeed("score", f"--out={out}", f"--scorer={scorer}", f"--python={python}", *more)
    return json.loads((out / f"score_{scorer}.json").read_text())


def test_each_picture_is_scored_with_its_prompt(out, python):
    content = score(out, "image_reward", python)
    assert content["items"] == {"00000": pytest.approx(1.2), "00001": pytest.approx(0.2)}
    assert content["averages"] == {"ImageReward, mean of pictures": pytest.approx(0.7)}
    assert content["categories"] == {"counting": pytest.approx(0.2), "single_object": pytest.approx(1.2)}
    assert (content["pictures_scored"], content["failed"]) == (4, 0)


def test_a_score_that_is_no_number_is_counted_and_in_no_average(out, python):
    content = score(out, "hpsv3", python)
    assert content["averages"] == {"HPSv3, mean of pictures": 7.5}
    assert content["items"] == {"00000": 7.5}
    assert (content["items_scored"], content["items_expected"], content["failed"]) == (1, 2, 2)


def test_all_pictures_are_compared_with_those_of_a_folder(out, python, tmp_path):
    (tmp_path / "reference/deep").mkdir(parents=True)
    for name in ("a.png", "deep/b.jpg"):
        Image.new("RGB", (16, 16)).save(tmp_path / "reference" / name)
    (out / "images/00000/other.txt").write_text("no picture of the benchmark")
    content = score(out, "fid", python, f"--reference={tmp_path / 'reference'}")
    assert content["averages"] == {"FID": 4.0, "KID": 2.0, "KID, standard deviation of subsets": 0.0}
    assert (content["items_scored"], content["pictures_scored"], content["items"]) == (2, 4, {})
    assert "2 pictures" in content["judge"]


def test_a_report_has_the_scores_of_all_scorers_and_pairs_their_items(out, python, tmp_path):
    other = write_evaluated(tmp_path / "uno", "geneval", ITEMS, name="uno", samples=2, colour=(102, 0, 0))
    for run in (out, other):
        score(run, "image_reward", python)
        score(run, "hpsv3", python)
    succeed("report", f"--run={out}", f"--run={other}", f"--out={tmp_path / 'report'}")
    table = (tmp_path / "report/table.md").read_text()
    assert "| geneval | ImageReward, mean of pictures | bagel | image-reward | 0.7000 | 0.9000 |" in table
    assert "| geneval | HPSv3, mean of pictures | bagel | hpsv3 | 7.50 (1 of 2) | 7.50 (1 of 2) |" in table
    assert "| geneval | bagel | image-reward | uno - base | 2 | +0.2000 | +0.2000 | +0.2000 |" in table


def test_a_scorer_that_fails_is_one_sentence_with_its_reason_and_log(out, python):
    message = fail("score", f"--out={out}", "--scorer=vqascore", f"--python={python}")
    assert f"{python} cannot score with t2v-metrics (OSError: cannot reach the hub for clip-flant5-xxl)" in message
    assert message.count("\n") == 0
    assert "Traceback" in (out / "scorers/vqascore.log").read_text()
    assert not (out / "score_vqascore.json").exists()


def test_an_environment_without_the_package_is_named(out):
    message = fail("score", f"--out={out}", "--scorer=hpsv3")
    assert f"{sys.executable} cannot score with hpsv3 (ModuleNotFoundError: No module named 'hpsv3')" in message
    assert f"`{sys.executable} -m pip install hpsv3`" in message


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("--scorer=hpsv3", "--python=/none/python"), "--python is /none/python, which cannot be run"),
        (("--scorer=hpsv3", "--reference=."), "hpsv3 takes no --reference, because it compares pictures with their"),
        (("--scorer=fid",), "torch-fidelity needs the folder of --reference, because it compares pictures with other"),
        (("--scorer=fid", "--reference=/none"), "/none: there are no pictures"),
        (("--scorer=hpsv3", "--side=8"), "--side is for scorers that compare pictures, and not for hpsv3"),
        (("--scorer=hpsv3", "--results=any"), "give --results of the official scorer, a --judge_url to ask, or"),
    ],
)
def test_flags_that_do_not_fit_are_one_sentence(out, flags, expected):
    assert expected in fail("score", f"--out={out}", *flags)


def test_pictures_of_several_sizes_need_a_side(out, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "small.png")
    message = fail("score", f"--out={out}", "--scorer=fid", f"--reference={tmp_path}")
    assert "has 16x16 pixels" in message
    assert "give --side to resize and crop all" in message


def test_edits_are_not_scored_by_their_instruction(tmp_path):
    run = write_evaluated(tmp_path / "run", "gedit_en", {"style/a": "style"}, source="sources/style/a.png")
    assert "has edits, but hpsv3 compares a picture with a description" in fail(
        "score", f"--out={run}", "--scorer=hpsv3"
    )


def test_the_documentation_lists_every_scorer_and_what_was_tried():
    text = (Path(__file__).parents[2] / "docs/evaluation.md").read_text()
    for name, scorer in SCORERS.items():
        assert f"| `{name}` | `{scorer.package}` |" in text
        assert f"| {scorer.tried} |" in text
