"""The reference checks hold for a case with another time shift and another guidance interval."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers.paths import REFERENCE
from tests.helpers.second_case import write_second_case
from tests.reference import sampling, training, uno
from tests.reference.harness import Reference

PICTURE = "edit/global/image"
"""The original did not decode this case's edit."""


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    directory = tmp_path_factory.mktemp("reference") / "second"
    write_second_case(REFERENCE, directory)
    return Reference(directory)


@pytest.mark.parametrize("part", [training, uno, sampling], ids=lambda part: part.__name__.split(".")[-1])
def test_a_second_case_agrees(part, second):
    compared = 0
    for check in part.checks(second):
        if check.array != PICTURE:
            check.compare(np.asarray(check.actual), second.expected(check.file, check.array))
            compared += 1
    assert compared > 20
