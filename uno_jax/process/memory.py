"""Keeps the freed memory of CPU programs, instead of returning it to the system after every step."""

from __future__ import annotations

import ctypes
from typing import Any

# Options of glibc's mallopt, from its malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_LARGEST = 2**31 - 1  # bytes; mallopt takes a C int


def keep_freed_memory(library: Any = None) -> bool:
    """Makes glibc's allocator reuse large freed blocks. Returns whether it succeeded (False on other C libraries).

    XLA's CPU backend allocates one block for all temporaries of a program, and frees it after every call. By default
    glibc then unmaps it, and the next step takes a page fault for every 4 KiB that it touches: about a fifth of a
    training step on two cores (`benchmarks/train_step.py --default_allocator`).

    All allocations go through one arena, because only the main arena can keep large blocks. This suits a CPU, which
    runs one program at a time, but not the host of an accelerator with many allocating threads. Call it before JAX
    starts its threads. Freed memory stays with the process, so its resident size stays at its peak.

    Args:
      library: a loaded C library; None: that of the process.
    """
    try:
        mallopt = (library or ctypes.CDLL(None)).mallopt
    except (OSError, AttributeError):
        return False
    options = ((_ARENA_MAX, 1), (_TRIM_THRESHOLD, _LARGEST), (_MMAP_THRESHOLD, _LARGEST))
    return all([mallopt(option, value) == 1 for option, value in options])
