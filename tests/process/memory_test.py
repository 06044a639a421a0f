"""The setting of the allocator, in separate processes because it cannot be undone."""

from __future__ import annotations

import subprocess
import sys

import pytest

from uno_jax.process.memory import keep_freed_memory

# Fills a block of 64 MiB (16,384 pages of 4 KiB) and frees it, four times; prints the page faults of the last three.
PROGRAM = """
import resource, sys
from uno_jax.process.memory import keep_freed_memory
if sys.argv[1] == "keep" and not keep_freed_memory():
    sys.exit("this C library has no mallopt")
block = b"x" * (64 << 20)
del block
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    block = b"x" * (64 << 20)
    del block
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(mode: str) -> float:
    done = subprocess.run([sys.executable, "-c", PROGRAM, mode], capture_output=True, text=True, check=True)
    return float(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc")
def test_reusing_a_freed_block_causes_no_page_faults() -> None:
    assert faults("keep") < 100 < 10_000 < faults("default")


def test_a_c_library_without_the_setting_is_not_an_error() -> None:
    assert keep_freed_memory(object()) is False
