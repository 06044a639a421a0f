"""The fingerprint of a dataset tells whether its records are the same."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from tests.helpers.tiny_run import records, write_dataset
from uno_jax.data.fingerprint import split_fingerprint
from uno_jax.data.records import write_records


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "squares")


def test_it_is_the_same_for_a_copy_and_another_for_another_split(dataset, tmp_path):
    copy = shutil.copytree(dataset, tmp_path / "copy")
    assert split_fingerprint(copy, "train") == split_fingerprint(dataset, "train")
    assert split_fingerprint(dataset, "test") != split_fingerprint(dataset, "train")


def test_it_changes_with_one_picture(dataset, tmp_path):
    changed = records("train")
    changed[5] = dataclasses.replace(changed[5], image=changed[6].image)
    other = tmp_path / "other"
    write_records(other, "squares", {"train": lambda: changed}, description="squares", license_text="none")
    assert split_fingerprint(other, "train") != split_fingerprint(dataset, "train")


def test_it_changes_with_a_byte_at_either_end_of_a_file(dataset, tmp_path):
    for at in (0, -1):
        copy = shutil.copytree(dataset, tmp_path / str(at))
        (file,) = copy.glob("*-train.array_record*")
        content = bytearray(file.read_bytes())
        content[at] ^= 1
        file.write_bytes(content)
        assert split_fingerprint(copy, "train") != split_fingerprint(dataset, "train")


def test_it_reads_little_of_a_large_file(tmp_path):
    with (tmp_path / "x-train.array_record-00000-of-00001").open("wb") as file:
        file.truncate(10**12)  # sparse
    assert len(split_fingerprint(tmp_path, "train")) == 64
