"""Paths of the project and of the tests' data."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
TESTDATA = ROOT / "tests" / "testdata"
REFERENCE = TESTDATA / "bagel_tiny_a"
