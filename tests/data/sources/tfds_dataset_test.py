"""Datasets of TFDS by name."""

import json

import pytest

from tests.helpers.made_up_sources import SINGLE, read_all, square, values_of, write_tfds
from uno_jax.data.sources.source import DataSourceError
from uno_jax.data.sources.tfds_dataset import TFDS
from uno_jax.process.errors import UserError


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    return write_tfds(tmp_path_factory.mktemp("tfds"), SINGLE)


def test_examples_are_records_and_classes_are_their_names(options):
    records, rejections = read_all(TFDS, **options)
    assert rejections == []
    edit = next(record for record in records if record.id == "b/3")
    assert (edit.task, edit.sources, edit.captions) == ("editing", (square(4), square(5)), ("joined",))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tfds": "no_such_dataset"}, r"no_such_dataset is not in .*download_and_prepare\(\)"),
        ({"tfds": "../../evil"}, "is no name of a dataset"),
        ({"tfds_data_dir": "/nowhere"}, r"is not in /nowhere.*download_and_prepare\(\)"),
        ({"tfds_data_dir": "ftp://host"}, "nothing here reads"),
        ({"columns": ""}, None),
    ],
)
def test_a_dataset_that_is_not_there_is_refused_before_anything_is_read(options, changes, message):
    if message is None:
        _, rejections = read_all(TFDS, **options | changes)
        assert {rejection.field.partition("[")[0] for rejection in rejections} == {"captions"}
        return
    with pytest.raises(DataSourceError, match=message):
        TFDS.identity(values_of(TFDS, **options | changes))


def test_features_that_name_other_code_are_refused(tmp_path):
    options = write_tfds(tmp_path, SINGLE[:1])
    [file] = tmp_path.glob("made_up_pictures/*/features.json")
    features = json.loads(file.read_text())
    features["pythonClassName"] = "os.system"
    file.write_text(json.dumps(features))
    with pytest.raises(UserError, match=r"'os\.system' is no feature of TFDS itself"):
        TFDS.identity(values_of(TFDS, **options))
