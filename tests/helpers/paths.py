"""Where the project and the tests' data are."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
TESTDATA = ROOT / "tests" / "testdata"
REFERENCE = TESTDATA / "bagel_tiny_a"
