"""A run resumes from its newest whole checkpoint, whatever happened to newer ones, or says what is wrong with each."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.damage import cut, files_of, flip_bit, put_value, remove_checksums
from tests.helpers.tiny_run import assert_same_run, quiet, tiny_uno
from uno_jax.config import ConfigError
from uno_jax.parallel.mesh import make_mesh
from uno_jax.process.errors import CheckpointError
from uno_jax.run.dataset import open_data
from uno_jax.run.resume import Resumed, about_data, resume
from uno_jax.run.run import run
from uno_jax.training.checkpoint_folders import saved_steps


@pytest.fixture
def workdir(unbroken, tmp_path) -> Path:
    """A copy of a run of six steps, with checkpoints of steps 2, 4 and 6."""
    return Path(shutil.copytree(unbroken, tmp_path / "run"))


class Resuming:
    def __init__(self, dataset: Path, workdir: Path):
        self.dataset, self.workdir, self.said = dataset, workdir, list[str]()

    def __call__(self, resume_step: int | None = None, accept_changes: bool = False, **changes: Any) -> Resumed | None:
        config = tiny_uno(self.dataset, **changes)
        return resume(
            config,
            self.workdir,
            make_mesh(config.mesh),
            about_data(open_data(config)),
            self.said.append,
            resume_step=resume_step,
            accept_changes=accept_changes,
        )


@pytest.fixture
def resuming(dataset, workdir) -> Resuming:
    return Resuming(dataset, workdir)


def largest(checkpoint: Path, item: str) -> Path:
    return files_of(checkpoint / item)[0]


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "a bit of the parameters": lambda at: flip_bit(largest(at, "params"), 100_000),
    "a bit of Adam's moments": lambda at: flip_bit(largest(at, "training"), 100_000),
    "a bit of the EMA": lambda at: flip_bit(largest(at, "ema"), 100_000),
    "a bit of the tokenizer": lambda at: flip_bit(at / "assets" / "vocab.json", 100),
    "a bit of the data position": lambda at: flip_bit(at / "data" / "metadata", 100),
    "a bit of the checksums": lambda at: flip_bit(at / "checksums" / "checksums.json", 1000),
    "an array file deleted": lambda at: largest(at, "params").unlink(),
    "an array file cut": lambda at: cut(largest(at, "training")),
    "an array file empty": lambda at: largest(at, "ema").write_bytes(b""),
    "metadata deleted": lambda at: (at / "training" / "_METADATA").unlink(),
    "metadata cut": lambda at: cut(at / "params" / "_METADATA"),
    "training/ deleted": lambda at: shutil.rmtree(at / "training"),
    "params/ deleted": lambda at: shutil.rmtree(at / "params"),
    "data/ deleted": lambda at: shutil.rmtree(at / "data"),
    "one NaN": lambda at: put_value(at, "latent_in/bias", 0, np.nan),
}


QUICK = ("a bit of the parameters", "an array file deleted", "training/ deleted", "one NaN")


@pytest.mark.parametrize(
    "damage", [pytest.param(name, marks=() if name in QUICK else pytest.mark.faults) for name in DAMAGES]
)
def test_a_damaged_checkpoint_is_named_in_one_line_and_the_one_before_is_taken(resuming, workdir, damage, capfd):
    DAMAGES[damage](workdir / "checkpoints" / "6")
    resumed = resuming()
    assert resumed.checkpoint.name == "4"
    assert int(resumed.state.step) == 4
    (line,) = [line for line in resuming.said if "step 4" in line]
    assert line.startswith("Resuming from step 4, because a newer checkpoint is damaged, and renamed to 6.damaged. ")
    assert "\n" not in line
    assert "checkpoints/6" in line
    assert saved_steps(workdir / "checkpoints") == [2, 4]
    assert "Traceback" not in capfd.readouterr().err


def test_a_file_of_metadata_that_nothing_needs_may_be_missing(resuming, workdir):
    (workdir / "checkpoints" / "6" / "_CHECKPOINT_METADATA").unlink()
    assert resuming().checkpoint.name == "6"


def test_several_damaged_checkpoints_are_skipped(resuming, workdir):
    for step in (4, 6):
        DAMAGES["a bit of the parameters"](workdir / "checkpoints" / str(step))
    assert resuming().checkpoint.name == "2"
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["2", "4.damaged", "6.damaged"]


def test_if_none_is_whole_the_message_says_what_each_lacks_and_nothing_is_renamed(resuming, workdir):
    for step in (2, 4, 6):
        shutil.rmtree(workdir / "checkpoints" / str(step) / "training")
    with pytest.raises(CheckpointError, match="no checkpoint to resume from is whole; give another workdir") as error:
        resuming()
    assert [f"checkpoints/{step}: training is missing" in str(error.value) for step in (2, 4, 6)] == [True] * 3
    assert saved_steps(workdir / "checkpoints") == [2, 4, 6]


def test_the_steps_after_a_damaged_checkpoint_are_computed_again_and_saved(dataset, workdir, unbroken):
    DAMAGES["a bit of the parameters"](workdir / "checkpoints" / "6")
    console = quiet()
    assert run(tiny_uno(dataset), workdir, console=console)
    assert "renamed to 6.damaged" in console.file.getvalue()
    assert_same_run(workdir, unbroken, 6)


def test_a_step_can_be_chosen(resuming, workdir):
    assert resuming(resume_step=2).checkpoint.name == "2"
    assert saved_steps(workdir / "checkpoints") == [2]
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["2", "4.unused", "6.unused"]


def test_a_chosen_step_that_is_missing_or_damaged_is_an_error_that_names_the_others(resuming, workdir):
    with pytest.raises(ConfigError, match=r"--resume_step is 3, but .* has checkpoints of step 2, 4, 6"):
        resuming(resume_step=3)
    DAMAGES["training/ deleted"](workdir / "checkpoints" / "4")
    with pytest.raises(CheckpointError, match=r"give --resume_step with another step \(step 2, 6\)"):
        resuming(resume_step=4)


def test_a_step_cannot_be_chosen_in_a_new_run(dataset, tmp_path):
    with pytest.raises(ConfigError, match="has checkpoints of no step"):
        Resuming(dataset, tmp_path)(resume_step=2)


def test_checkpoints_of_an_earlier_version_are_resumed_with_a_line_that_they_are_not_checked(resuming, workdir):
    checkpoint = workdir / "checkpoints" / "6"
    remove_checksums(checkpoint)
    (checkpoint / "assets" / "data.json").unlink()
    assert resuming().checkpoint.name == "6"
    assert resuming.said == [
        f"{checkpoint.resolve()} has no checksums, because an earlier version wrote it, so its arrays are not checked."
    ]


def test_free_changes_are_listed_and_taken(resuming):
    assert resuming(steps=9, log_every=2).checkpoint.name == "6"
    assert resuming.said[0] == (
        "Changed since the checkpoint:\n  config.steps is 9, in the checkpoint 6\n"
        "  config.log_every is 2, in the checkpoint 1"
    )
    assert resuming.said[1].startswith("The constant schedule now ends at step 9, before at 6: step 7 has")


@pytest.mark.parametrize(("field", "value"), [("optimizer.weight_decay", 0.01), ("optimizer.clip_norm", 0.0)])
def test_a_changed_optimizer_is_refused_by_the_name_of_the_field(resuming, field, value):
    before = {"optimizer.weight_decay": 0.0, "optimizer.clip_norm": 1.0}[field]
    for accept in (False, True):  # its state has another form
        with pytest.raises(ConfigError, match=rf"config\.{field} is {value}, in the checkpoint {before}"):
            resuming(accept_changes=accept, **{field: value})


def test_changes_of_the_data_and_the_seed_are_refused_and_can_be_accepted(resuming):
    fields = {"seed": 3, "data.seed": 4}
    with pytest.raises(ConfigError) as error:
        resuming(**fields)
    assert "config.seed is 3, in the checkpoint 0" in str(error.value)
    assert "config.data.seed is 4, in the checkpoint 0" in str(error.value)
    assert "--accept_changes" in str(error.value)
    assert resuming(accept_changes=True, **fields).checkpoint.name == "6"
    assert "config.data.seed is 4, in the checkpoint 0" in resuming.said[0]


def test_other_records_under_the_same_path_are_refused(resuming, dataset, workdir, tmp_path):
    copy = Path(shutil.copytree(dataset, tmp_path / "copy"))
    assert resuming(**{"data.directory": str(copy)}).checkpoint.name == "6"
    (file,) = copy.glob("*-train.array_record*")
    flip_bit(file, 8 * 1000)
    with pytest.raises(
        ConfigError, match=r"config\.data\.directory is '.*copy', in the checkpoint 'other records \(in"
    ):
        resuming(**{"data.directory": str(copy)})
    assert resuming(accept_changes=True, **{"data.directory": str(copy)}).checkpoint.name == "6"


def test_another_tokenizer_is_refused(resuming, dataset, tmp_path):
    copy = Path(shutil.copytree(dataset / "tokenizer", tmp_path / "tokenizer"))
    assert resuming(**{"data.tokenizer": str(copy)}).checkpoint.name == "6"
    (copy / "merges.txt").write_text((copy / "merges.txt").read_text() + "a b\n")
    with pytest.raises(ConfigError, match=r"config\.data\.tokenizer is '.*', in the checkpoint 'another tokenizer'"):
        resuming(**{"data.tokenizer": str(copy)})


def test_the_checkpoint_names_its_data(workdir, dataset):
    named = json.loads((workdir / "checkpoints" / "6" / "assets" / "data.json").read_text())
    assert (named["directory"], named["split"]) == (str(dataset), "train")


def test_a_run_saves_checkpoints_in_a_linked_folder_and_resumes_from_there(dataset, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "checkpoints").symlink_to(tmp_path / "disk")
    unmeasured = {"evaluation.records": 0}
    assert run(tiny_uno(dataset, steps=2, **unmeasured), tmp_path / "linked", console=quiet())
    assert saved_steps(tmp_path / "disk") == [2]
    assert Resuming(dataset, tmp_path / "linked")(steps=4, **unmeasured).checkpoint.name == "2"
