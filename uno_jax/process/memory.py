"""Keeps memory that a CPU program has freed, instead of giving it back to the system after every step."""

from __future__ import annotations

import ctypes

# Options of glibc's mallopt, from its malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_LARGEST = 2**31 - 1  # bytes; mallopt takes a C int


def keep_freed_memory() -> bool:
    """Tells glibc's allocator to reuse large freed blocks; returns whether it could (False on other C libraries).

    XLA's CPU backend takes one block for all temporaries of a program, and frees it after every call. By default glibc
    then unmaps it, and the next step pays one page fault for every 4 KiB that it touches, about a fifth of a
    training step on two cores (`benchmarks/train_step.py --default_allocator`). Everything goes through one arena,
    since the others cannot hold large blocks: right for a CPU, where one program runs at a time, and not for a host
    of accelerators whose many threads allocate. Call it before JAX starts its threads. Freed memory stays with the
    process, so its resident size is its peak.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    options = ((_ARENA_MAX, 1), (_TRIM_THRESHOLD, _LARGEST), (_MMAP_THRESHOLD, _LARGEST))
    return all([mallopt(option, value) == 1 for option, value in options])
