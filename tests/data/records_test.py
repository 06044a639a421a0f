"""Records are read as they were written, in any process, without decoding pictures."""

import io
import pickle
import shutil

import numpy as np
import pytest
from PIL import Image

from uno_jax.batch import TASKS
from uno_jax.data.record import Record, RecordError
from uno_jax.data.records import open_records, record_tasks, write_records
from uno_jax.process.errors import UserError


def picture(colour: str, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (6, 4), colour).save(buffer, kind)
    return buffer.getvalue()


IMAGE = Record("a/1", "text_to_image", picture("red"), "a réd square", ("crimson", "scarlet 赤"))
PHOTO = Record("a/2", "text_to_image", picture("blue", "JPEG"), "a photo", ())
EDIT = Record(
    "a/3", "editing", picture("red"), "make it red", ("a red one",), (picture("blue"), picture("green", "JPEG"))
)
QUESTION = Record("a/4", "understanding", picture("green"), "which colour?", answer="green")
RECORDS = (IMAGE, PHOTO, EDIT, QUESTION)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("data") / "toy"
    splits = {"train": lambda: RECORDS, "test": lambda: RECORDS[:1]}
    write_records(directory, "toy", splits, description="Toys.", license_text="CC0")
    return directory


def by_id(source):
    return {source[index].id: source[index] for index in range(len(source))}


def test_every_field_comes_back_as_it_was_written(directory):
    assert by_id(open_records(directory, "train")) == {record.id: record for record in RECORDS}


def test_encoded_pictures_are_stored_byte_for_byte(directory):
    assert by_id(open_records(directory, "train"))["a/3"].sources == EDIT.sources


def test_splits_lie_in_one_directory(directory):
    assert [record_id for record_id in by_id(open_records(directory, "test"))] == ["a/1"]


def test_tasks_are_known_without_reading_records(directory):
    source, tasks = open_records(directory, "train"), record_tasks(directory, "train")
    assert tasks.dtype == np.int32
    assert [TASKS[task] for task in tasks] == [source[index].task for index in range(len(source))]


def test_a_source_can_be_pickled_after_it_was_read(directory):
    source = open_records(directory, "train")
    first = source[0]
    assert pickle.loads(pickle.dumps(source))[0] == first


def test_an_index_beyond_the_end_is_an_error(directory):
    with pytest.raises(IndexError, match="4 records"):
        open_records(directory, "train")[4]


def test_iteration_ends(directory):
    assert len(list(open_records(directory, "train"))) == 4


def test_a_directory_without_a_dataset_is_an_error_that_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match="prepare_data"):
        open_records(tmp_path, "train")


def test_a_missing_folder_or_split_is_named_with_what_there_is(directory):
    with pytest.raises(
        UserError, match=r"'a,b': there is no such folder.*Several datasets are given as config.data.mixture"
    ):
        open_records("a,b", "train")
    with pytest.raises(UserError, match=r"split 'validation' of a prepared dataset is missing.*It has test, train"):
        open_records(directory, "validation")


def records_file(directory):
    return directory / "toy-train.array_record-00000"


def cut(directory):
    records_file(directory).write_bytes(records_file(directory).read_bytes()[:-70_000])


def flip_a_bit(directory):
    damaged = bytearray(records_file(directory).read_bytes())
    damaged[200] ^= 1
    records_file(directory).write_bytes(damaged)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, r"toy-train\.array_record-00000: record 0 cannot be read \("),
        (flip_a_bit, r"toy-train\.array_record-00000: record 0 cannot be read \(.*hash mismatch"),
        (lambda toy: records_file(toy).write_bytes(b""), r"toy-train\.array_record-.*: record 0 cannot be read"),
        (lambda toy: records_file(toy).unlink(), r"toy-train\.array_record-00000: missing"),
        (lambda toy: (toy / "features.json").unlink(), r"toy: features\.json is missing"),
        (lambda toy: (toy / "features.json").write_text("{}"), "the dataset cannot be opened"),
        (lambda toy: (toy / "features.json").write_text('{"pythonClassName": "os.x"}'), "'os.x' is no feature"),
        (lambda toy: (toy / "dataset_info.json").write_text("{}"), "the dataset cannot be opened"),
        (lambda toy: (toy / "tasks-train.npy").write_bytes(b""), r"tasks-train\.npy: damaged"),
        (lambda toy: (toy / "tasks-train.npy").write_bytes(pickle.dumps([1])), r"tasks-train\.npy: damaged"),
        (lambda toy: np.save(toy / "tasks-train.npy", np.zeros(9, np.int32)), "4 records, but 9 tasks"),
        (lambda toy: np.save(toy / "tasks-train.npy", np.full(4, 99, np.int32)), "expected numbers of tasks"),
    ],
)
def test_damage_is_found_before_a_run_begins_and_its_file_is_named(directory, tmp_path, damage, message):
    shutil.copytree(directory, tmp_path / "toy")
    damage(tmp_path / "toy")
    with pytest.raises(UserError, match=rf"{message}.*Copy the dataset again, or prepare it again"):
        open_records(tmp_path / "toy", "train").check()


@pytest.mark.parametrize("changed", [lambda content: content[::-1], lambda content: content[:100], lambda content: b""])
def test_a_file_that_changes_while_it_is_open_is_named_with_the_record(directory, tmp_path, changed):
    shutil.copytree(directory, tmp_path / "toy")
    records = open_records(tmp_path / "toy", "train")
    assert records[0]
    file = records_file(tmp_path / "toy")
    file.write_bytes(changed(file.read_bytes()))
    with pytest.raises(RecordError, match=r"toy-train\.array_record-00000: record 1 cannot be read"):
        records[1]


def test_a_file_that_is_deleted_or_replaced_while_it_is_open_is_read_to_its_end(directory, tmp_path):
    shutil.copytree(directory, tmp_path / "toy")
    records = open_records(tmp_path / "toy", "train")
    first = records[0]
    records_file(tmp_path / "toy").unlink()
    records_file(tmp_path / "toy").write_bytes(b"another file")
    assert [record.id for record in records] == [record.id for record in open_records(directory, "train")]
    assert records[0] == first


def test_an_unknown_task_is_rejected(tmp_path):
    bad = Record("x", "painting", picture("red"), "paint")
    with pytest.raises(ValueError, match="record 'x': task 'painting'"):
        write_records(tmp_path / "d", "toy", {"train": lambda: [bad]}, description="", license_text="")


def test_a_directory_that_is_not_empty_is_rejected(directory):
    with pytest.raises(FileExistsError, match="not empty"):
        write_records(directory, "toy", {"train": lambda: RECORDS}, description="", license_text="")


def test_the_license_is_in_the_dataset(directory):
    assert "CC0" in (directory / "LICENSE").read_text() + (directory / "dataset_info.json").read_text()
