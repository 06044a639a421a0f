"""The folders import downwards only."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

LAYERS = (
    ("__main__",),
    ("study",),
    (
        "aot",
        "chat",
        "convert",
        "demo",
        "evaluate",
        "look_inside",
        "prepare_data",
        "pretrain_vision",
        "sample",
        "serve",
        "train",
    ),
    ("enrich", "evaluation", "inside", "planning", "serving"),
    ("run",),
    ("inference",),
    ("interop",),
    ("training", "sampling", "sheets"),
    ("objectives",),
    ("models", "data"),
    ("batch",),
    ("attention",),
    ("parallel",),
    ("config",),
    ("process",),
)
"""Rooms of the package from the top floor down; rooms of one floor do not import each other."""

FLOOR = {room: floor for floor, rooms in enumerate(LAYERS) for room in rooms}
FILES = sorted(path for path in (ROOT / "uno_jax").rglob("*.py") if path != ROOT / "uno_jax" / "__init__.py")


def room_of(path: Path) -> str:
    return path.relative_to(ROOT / "uno_jax").parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            modules |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
    return {module.split(".")[1] for module in modules if module.startswith("uno_jax.")} & FLOOR.keys()


def test_every_file_of_the_package_is_in_a_room_that_has_a_floor():
    assert {room_of(path) for path in FILES} == FLOOR.keys()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT / "uno_jax")))
def test_a_file_imports_its_own_room_and_lower_floors_only(path):
    own = room_of(path)
    assert {room for room in imported_rooms(path) if FLOOR[room] <= FLOOR[own]} <= {own}
