"""Options of the test suite."""

from __future__ import annotations

import os
from collections.abc import Iterator

import hypothesis
import jaxtyping
import pytest

from tests.helpers.paths import REFERENCE

# One test process is one device, whatever the machine has; tests of several devices start a process of their own.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Commands under test compile everything, and leave nothing in the user's home.
os.environ["JAX_COMPILATION_CACHE_DIR"] = ""

# How long an example takes depends on what else the machine does.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

# Markers of tests that are not in the default suite.
_ON_REQUEST = ("slow", "faults")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--reference",
        default=str(REFERENCE),
        help="directory of reference numbers of the original implementation (default: the one in tests/testdata)",
    )
    for name in _ON_REQUEST:
        parser.addoption(f"--{name}", action="store_true", help=f"also run the tests marked {name}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for name in _ON_REQUEST:
        if config.getoption(f"--{name}") or name in (config.getoption("-m") or ""):
            continue
        skip = pytest.mark.skip(reason=f"{name}: run with --{name}")
        for item in items:
            if name in item.keywords:
                item.add_marker(skip)


@pytest.fixture
def unchecked_annotations() -> Iterator[None]:
    """Lets arguments of a wrong type in: for what the package itself says of them."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def quick_compiles() -> Iterator[None]:
    """Programs of the module's tests are compiled with few optimizations: for small ones that run a few times."""
    import jax

    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
