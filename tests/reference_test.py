"""Everything we compute against what the original implementation computed, array by array.

`pytest tests/reference_test.py --reference=DIR` checks another directory of the same format; no size is fixed here.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.reference import autoencoder, packing, sampling, tokenizer, training, transforms, uno, vision
from tests.reference.harness import Check, Reference

PARTS = {
    "tokenizer": tokenizer,
    "transforms": transforms,
    "packing": packing,
    "vision": vision,
    "autoencoder": autoencoder,
    "training": training,
    "uno": uno,
    "sampling": sampling,
}

UNUSED: dict[str, str] = {}
for _part in PARTS.values():
    UNUSED |= _part.UNUSED


@pytest.fixture(scope="module")
def reference(request: pytest.FixtureRequest) -> Reference:
    return Reference(Path(request.config.getoption("--reference")))


@pytest.fixture(scope="module")
def computed(reference: Reference) -> Callable[[str], list[Check]]:
    """The checks of a part; computed once, then compared with the stored and with the perturbed arrays."""
    done: dict[str, list[Check]] = {}

    def checks(part: str) -> list[Check]:
        if part not in done:
            done[part] = list(PARTS[part].checks(reference))
        return done[part]

    return checks


@pytest.mark.parametrize("part", PARTS)
def test_agrees_with_the_original(part: str, computed: Callable, reference: Reference) -> None:
    failures = []
    for check in computed(part):
        try:
            check.compare(np.asarray(check.actual), reference.expected(check.file, check.array))
        except AssertionError as error:
            failures.append(f"{check.file} {check.array}: {error}")
    assert not failures, "\n".join(failures)


@pytest.mark.parametrize("part", PARTS)
def test_a_perturbed_array_is_noticed(part: str, computed: Callable, reference: Reference) -> None:
    unnoticed = []
    for check in computed(part):
        for changed in perturbations(reference.expected(check.file, check.array)):
            try:
                check.compare(np.asarray(check.actual), changed)
            except AssertionError:
                continue
            unnoticed.append(f"{check.file} {check.array}")
    assert not unnoticed, f"checks that cannot fail: {unnoticed}"


def test_every_stored_array_is_used_or_listed_with_a_reason(computed: Callable, reference: Reference) -> None:
    used = {(check.file, check.array) for part in PARTS for check in computed(part)} | reference.read
    stored = {(file, name) for file in reference.files for name in reference.names(file)}
    idle = sorted(
        f"{file}/{name}"
        for file, name in stored - used
        if not any(fnmatch.fnmatchcase(f"{file}/{name}", pattern) for pattern in UNUSED)
    )
    assert not idle, f"neither checked, read, nor listed as unused: {idle}"


def perturbations(expected: np.ndarray) -> Iterator[np.ndarray]:
    """The array with one element moved by a thousandth of the array's size, or by one, for whole numbers, or by three,
    for pixels: ours may differ by one.
    """
    for place in {0, expected.size // 2, expected.size - 1}:
        changed = np.array(expected)
        flat = changed.reshape(-1)
        if changed.dtype == bool:
            flat[place] = ~flat[place]
        elif np.issubdtype(changed.dtype, np.floating):
            flat[place] += max(1e-3 * float(np.linalg.norm(expected)), 1e-3 * float(np.abs(expected).max()), 1e-6)
        else:
            flat[place] += 3 if changed.dtype == np.uint8 else 1
        yield changed
