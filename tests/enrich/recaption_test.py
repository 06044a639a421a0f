"""The command `prepare_data recaption`: captions that a model writes, and runs that train on them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helpers.commands import error_of, output_of
from tests.helpers.small_loaded import save_small_checkpoint
from tests.helpers.tiny_run import tiny_uno
from uno_jax.data.annex import Entries, open_annex
from uno_jax.data.captions import KIND, WrittenCaption, captioned, from_entry
from uno_jax.data.mixture import open_mixture
from uno_jax.data.records import open_records
from uno_jax.enrich import recaption_command
from uno_jax.interop.identity import about_checkpoint
from uno_jax.run.resume import about_data

pytestmark = pytest.mark.usefixtures("quick_compiles")


def flags_of(dataset: Path, model: Path, out: Path) -> list[str]:
    # Drawn, because greedy texts of random parameters repeat one token.
    made = [f"--data={dataset}", f"--checkpoint={model}", f"--out={out}", "--temperature=1", "--max_length=64"]
    return [*made, "--batch=8", "--records_per_shard=8", "--styles=plain", "--prompt=Which colour?"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_checkpoint(tmp_path_factory.mktemp("model") / "small")


@pytest.fixture(scope="module")
def captions(dataset: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("captions") / "out"
    output_of(recaption_command.main, flags_of(dataset, model, out))
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def written(captions: Path) -> list[list[WrittenCaption]]:
    entries = Entries(open_annex(captions, KIND), "train")
    return [from_entry(entries[number]) for number in range(24)]


def test_every_picture_has_a_caption_in_each_style_with_name_and_hash_of_the_model(captions, model):
    found = written(captions)
    assert [[caption.style for caption in entry] for entry in found] == [["plain", "own_1"]] * 24
    name = f"small {about_checkpoint(str(model))['sha256']}"
    assert {caption.checkpoint for entry in found for caption in entry} == {name}
    assert json.loads((captions / "annex.json").read_bytes())["styles"] == [["plain", ""], ["own_1", "Which colour?"]]


def test_captions_that_are_missing_are_written_again_the_same(captions, dataset, model, tmp_path):
    given = flags_of(dataset, model, tmp_path / "out")
    printed = output_of(recaption_command.main, [*given, "--part=1/3"])
    assert "2 shards are left to other processes" in printed
    output_of(recaption_command.main, given)
    assert contents(tmp_path / "out") == contents(captions)


def test_a_run_draws_from_the_captions_of_the_records_and_of_the_model(captions, dataset):
    config = tiny_uno(dataset, **{"data.captions": str(captions)}).data
    records, own = open_mixture(config, "train"), open_records(dataset, "train")
    found = written(captions)
    for number in range(24):
        assert records[number] == captioned(own[number], found[number])
        assert records[number].captions[: len(own[number].captions)] == own[number].captions
    assert any(len(records[number].captions) > len(own[number].captions) for number in range(24))


def test_captions_that_are_cut_or_repeat_a_text_of_the_record_are_not_trained_on(dataset):
    record = open_records(dataset, "train")[1]
    texts = [("new", False), ("cut", True), ("", False), ("New ", False), (record.prompt.upper(), False)]
    captions = [WrittenCaption(text, "plain", "model", cut) for text, cut in texts]
    assert captioned(record, captions).captions == (*record.captions, "new")


def test_a_resumed_run_recognises_other_captions(captions, dataset):
    without, with_ = (
        about_data(open_mixture(tiny_uno(dataset, **{"data.captions": folder}).data, "train"))
        for folder in ("", str(captions))
    )
    assert without["captions"] == ""
    assert with_["captions"]
    assert with_["fingerprint"] == without["fingerprint"]


def test_unknown_styles_are_refused(dataset, model, tmp_path):
    given = [f"--data={dataset}", f"--checkpoint={model}", f"--out={tmp_path}", "--styles=long"]
    assert "--styles names long: expected some of plain, short" in error_of(recaption_command.main, given)
