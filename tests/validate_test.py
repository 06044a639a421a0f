"""The command `prepare_data validate`: what it prints, writes, and exits with."""

import json
import re

import pytest
from absl import flags

from tests.helpers.tiny_run import tiny_uno, write_config, write_dataset
from uno_jax import prepare_data
from uno_jax.data.buffers import check_share
from uno_jax.data.pipeline import TooManySkipped
from uno_jax.data.tokenizer import Tokenizer
from uno_jax.run.dataset import buffer_facts, open_data, sampled_buffers


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a dataset and a config."""
    folder = tmp_path_factory.mktemp("validate")
    write_dataset(folder / "data")
    write_config(folder / "config.py", folder / "data", {})
    return folder


@pytest.fixture
def validate(folder, tmp_path, capsys):
    """Runs the command. Returns the exit status, what was printed, and the report."""

    def run(*options: str):
        report = tmp_path / "report.json"
        status: object = 0
        try:
            prepare_data.main(["validate", f"--config={folder / 'config.py'}", f"--report={report}", *options])
        except SystemExit as stop:
            status = stop.code
        out, error = capsys.readouterr()
        return status, out + error, json.loads(report.read_text()) if report.exists() else None

    return run


def test_a_good_dataset_is_described(validate):
    status, printed, report = validate("--fit")
    assert status == 0
    assert report["records"] == {"text_to_image": 18, "editing": 6}
    assert report["pictures"]["count"] == 30
    assert report["pictures"]["ranges"]["width"] == [16, 16]
    assert report["buffers"]["share_left_out"] == 0
    assert report["buffers"]["regions"]["latent"]["longest"] == 8
    assert report["steps_per_epoch"]["all"] == pytest.approx(24 / (2 * report["buffers"]["samples_per_row"]))
    assert report["proposed"]["regions"]["latent"]["row"] == 12
    assert report["problems"] == []
    assert "100.0% of 24 samples fit a row." in printed
    assert "Nothing here would break a run." in printed


def test_records_that_fit_no_row_break_a_run_and_the_field_to_enlarge_is_named(validate):
    status, printed, report = validate("--config.data.caption_tokens=4")
    assert status == 1
    longest = report["buffers"]["regions"]["caption"]["longest"]
    assert f"need more than data.caption_tokens = 4: increase it to {longest} for all" in printed
    assert "breaks a run: " in printed
    assert f"increase data.caption_tokens to {longest}" in report["problems"][0]
    assert len(report["buffers"]["left_out_ids"]) == report["buffers"]["regions"]["caption"]["too_long"] > 2


def test_samples_that_are_trained_on_without_their_caption_break_nothing(validate):
    status, printed, report = validate("--config.data.caption_tokens=4", "--config.data.long_captions=replace")
    assert status == 0
    kept, long = report["buffers"]["kept"], report["buffers"]["regions"]["caption"]["too_long"]
    assert kept["other_caption"] + kept["unsupervised"] == long > 2
    said = f"{kept['other_caption']} with another caption, {kept['unsupervised']} without supervision."
    assert f"{long} samples have a caption that is too long: {said}" in printed


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--config.data.directory=nowhere", "config.data.directory: 'nowhere': there is no such folder"),
        ("--config.data.virtual_shards=64", "data.rows is 2, not a multiple of data.virtual_shards = 64"),
        ("--config.data.text_tokens=1", "data.text_tokens is 1, but one text_to_image sample"),
        ("--config.evaluation.split=dev", "has no split 'dev'"),
        ("--config.init_from=nowhere", "config.init_from: nowhere: no checkpoint found"),
    ],
)
def test_a_config_that_a_run_would_refuse_is_refused(validate, option, message):
    status, printed, report = validate(option)
    assert message in f"{status}{printed}"
    assert "Traceback" not in printed
    assert report is None


def test_data_that_end_before_the_last_step_break_a_run(validate):
    status, _, report = validate("--config.data.epochs=1", "--config.steps=400")
    assert status == 1
    assert report["problems"][0].startswith("config.steps is 400, but the data end after about ")


def test_a_tokenizer_of_the_config_needs_no_checkpoint(validate, folder):
    tokenizer = folder / "data" / "tokenizer"
    assert validate("--config.init_from=nowhere", f"--config.data.tokenizer={tokenizer}")[0] == 0


def test_the_start_up_table_of_a_run_has_the_same_figures_of_its_first_samples(folder):
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    config = tiny_uno(folder / "data")
    tokenizer = Tokenizer.from_directory(folder / "data" / "tokenizer")
    mixture = open_data(config)
    facts = dict(buffer_facts(config, mixture, sampled_buffers(config, mixture, tokenizer)))
    assert facts["samples that fit"] == "100.0% of the first 24"
    assert "samples per row" in facts["padding"]
    assert float(facts["steps per epoch"]) > 1
    short = tiny_uno(folder / "data", **{"data.caption_tokens": 5})
    mixture = open_data(short)
    buffers = sampled_buffers(short, mixture, tokenizer)
    facts = dict(buffer_facts(short, mixture, buffers))
    assert "caption_tokens" in facts["samples that fit"]
    increase = f"increase data.caption_tokens to {buffers.needed('caption')} ({len(buffers.long)})"
    assert facts["warning"] == f"To keep the longest ones, {increase}."
    with pytest.raises(TooManySkipped, match=re.escape(increase)):
        check_share(buffers, short.data, "the first samples")
