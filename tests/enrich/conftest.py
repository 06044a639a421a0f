"""A dataset shared by the tests of what models add to datasets."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.tiny_run import write_dataset


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "squares")
