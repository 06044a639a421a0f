"""The command `uno_jax.look_inside`: its files, its numbers, and its messages."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from PIL import Image

from tests.helpers.commands import error_of, output_of
from tests.helpers.small_loaded import save_small_checkpoint
from tests.helpers.tiny_run import write_dataset
from uno_jax import look_inside

pytestmark = pytest.mark.usefixtures("quick_compiles")


class Inputs(NamedTuple):
    """Two checkpoints with different parameters, and a dataset."""

    before: Path
    after: Path
    data: Path


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Inputs:
    root = tmp_path_factory.mktemp("look_inside")
    return Inputs(
        save_small_checkpoint(root / "before"),
        save_small_checkpoint(root / "after", seed=1),
        write_dataset(root / "data"),
    )


def command(out: Path, *arguments: str) -> list[str]:
    return [f"--out={out}", "--pictures=2", "--caption_tokens=4", *arguments]


def succeed(out: Path, *arguments: str) -> str:
    """Returns the output of the command."""
    return output_of(look_inside.main, command(out, *arguments))


def fail(out: Path, *arguments: str) -> str:
    """Returns the error message of the command, which is one sentence."""
    message = error_of(look_inside.main, command(out, *arguments))
    assert not out.exists()
    return message


@pytest.fixture(scope="module")
def found(inputs, tmp_path_factory) -> Path:
    """Output of a look inside both checkpoints."""
    out = tmp_path_factory.mktemp("found") / "out"
    both = [f"--checkpoint={inputs.before}", f"--checkpoint={inputs.after}"]
    succeed(out, *both, f"--data={inputs.data}", "--layers=0,2", "--times=0.5,1", "--records=100")
    return out


def read(out: Path) -> Mapping[str, Any]:
    content: Mapping[str, Any] = json.loads((out / "look_inside.json").read_text())
    return content


def test_there_is_a_sheet_for_every_part(found):
    sheets = {str(file.relative_to(found)) for file in found.rglob("*.png")}
    assert sheets == {
        *("pca/layers_t0.5.png", "pca/layers_t1.png", "pca/times_layer0.png", "pca/times_layer2.png"),
        *("probes_word.png", "gradients.png", "captions.png"),
    }
    for sheet in sheets:
        assert min(Image.open(found / sheet).size) > 200, sheet


def test_the_report_states_what_was_looked_at(found, inputs):
    report = read(found)
    assert report["command"]["checkpoint"] == [str(inputs.before), str(inputs.after)]
    assert report["command"]["records"] == 100
    assert {name: each["path"] for name, each in report["checkpoints"].items()} == {
        "before": str(inputs.before),
        "after": str(inputs.after),
    }
    assert report["checkpoints"]["after"]["model"]["decoder"]["num_layers"] == 2
    assert len(report["records"]) == len(set(report["records"])) == 18  # all of text to image
    assert (report["layers"], report["times"]) == ([0, 2], [0.5, 1.0])


def test_the_report_has_a_number_for_every_checkpoint_layer_and_time(found):
    report = read(found)
    places = [(0, 0.5), (2, 0.5), (0, 1.0), (2, 1.0)]
    for name in ("before", "after"):
        assert [(each["layer"], each["time"]) for each in report["pca"][name]] == places
        assert all(0 < sum(each["explained_variance"]) <= 1 for each in report["pca"][name])
        for kind in ("pooled", "tokens"):
            probes = [each for each in report["probes"][name] if each["states"] == kind]
            assert [(each["layer"], each["time"]) for each in probes] == places
            assert all(each["question"] == "word" and 0 <= each["auc"] <= 1 for each in probes)
        assert len(report["captions"][name]) == 4
    assert report["questions"]["word"] == {"green": 6, "blue": 6, "red": 6}


def test_colours_are_read_from_half_noised_squares_and_not_from_pure_noise(found):
    """Squares of three colours, pooled: even the projection of the noised latents tells them apart."""

    def area(time: float) -> float:
        [probe] = [
            each
            for each in read(found)["probes"]["before"]
            if (each["layer"], each["time"], each["states"]) == (0, time, "pooled")
        ]
        return probe["auc"]

    assert area(0.5) > 0.9
    assert area(1.0) < 0.8


def test_gradients_by_layer_add_up_in_the_report(found):
    for gradients in read(found)["gradients"].values():
        assert set(gradients["norms"]) == {"flow", "caption", "visual"}
        assert set(gradients["cosines"]) == {"flow_caption", "flow_visual", "caption_visual"}
        for norm in gradients["norms"].values():
            assert norm["total"] == pytest.approx(math.hypot(*norm["layers"]), rel=1e-4)


def test_only_the_chosen_parts_are_measured(inputs, tmp_path):
    out = tmp_path / "out"
    printed = succeed(
        out,
        f"--checkpoint={inputs.before}",
        f"--data={inputs.data}",
        "--only=captions",
        "--times=0.5",
        "--task=editing",
    )
    assert "look_inside.json, 1 sheet" in printed
    assert [file.name for file in sorted(out.iterdir())] == ["captions.png", "look_inside.json"]
    assert not {"pca", "probes", "gradients"} & read(out).keys()


def test_a_prompt_that_is_visible_changes_what_is_measured(inputs, tmp_path):
    def explained(*arguments: str) -> list[float]:
        out = tmp_path / "-".join(["out", *arguments])
        options = ["--only=pca", "--times=0.5", "--layers=2", *arguments]
        succeed(out, f"--checkpoint={inputs.before}", f"--data={inputs.data}", *options)
        return read(out)["pca"]["before"][0]["explained_variance"]

    assert explained() != explained("--context=visible")


def test_what_cannot_be_looked_at_is_said_before_any_work(inputs, tmp_path):
    out, checkpoint, data = tmp_path / "out", f"--checkpoint={inputs.before}", f"--data={inputs.data}"
    assert "nothing: no checkpoint found" in fail(out, checkpoint, f"--checkpoint={tmp_path / 'nothing'}", data)
    assert "--layers names 3, 9, but before has the states 0" in fail(out, checkpoint, data, "--layers=0,3,9")
    assert "split 'test' of a prepared dataset is missing" in fail(out, checkpoint, f"--data={tmp_path}")
    assert "--only=pca,gradients,captions" in fail(out, checkpoint, data, "--records=3")


def test_a_split_without_records_of_the_task_is_named_with_what_it_has(inputs, tmp_path):
    from tests.helpers.tiny_run import records
    from uno_jax.data.records import write_records

    edits = [record for record in records("test") if record.task == "editing"]
    write_records(tmp_path / "edits", "edits", {"test": lambda: edits}, description="edits", license_text="none")
    message = fail(tmp_path / "out", f"--checkpoint={inputs.before}", f"--data={tmp_path / 'edits'}")
    assert "has no record of text_to_image, but 6 of editing: give another --task" in message


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("--only=pca,maps", "'maps': expected some of pca, probes, gradients, captions"),
        ("--layers=0,-1", "'0,-1': expected whole numbers such as 0,2,4"),
        ("--times=0.5,2", "'0.5,2': expected numbers from 0 to 1"),
        ("--times=half", "'half': expected numbers from 0 to 1"),
        ("--records=0", "not a positive integer"),
    ],
)
def test_an_invalid_option_is_named_with_the_expected_value(option, expected, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit:
        succeed(tmp_path / "out", "--checkpoint=nothing", "--data=nothing", option)
    assert exit.value.code == 2
    assert expected in capsys.readouterr().err
