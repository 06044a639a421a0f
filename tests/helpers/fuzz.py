"""Damaged bytes for fuzz tests, how many of them, and the memory that they may take."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator, Sequence
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

INPUTS = int(os.environ.get("UNO_FUZZ_INPUTS", "300"))
"""Inputs of all fuzz tests together."""

MIB = 2**20
_EXTREMES = (b"\0", b"\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x80\0\0\0", b"\0\0\0\0", b"\xff" * 8, b"\x01")


def inputs(share: float) -> Any:
    """Returns hypothesis settings for a share of the inputs."""
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]
    return settings(max_examples=max(round(share * INPUTS), 10), suppress_health_check=slow)


@st.composite
def damaged(draw: st.DrawFn, wholes: Sequence[bytes]) -> bytes:
    """Draws one of the files, with a few bytes overwritten, removed, inserted or copied from elsewhere, or cut."""
    data = bytearray(draw(st.sampled_from(wholes)))
    # Most damage that matters is in the headers.
    position = st.one_of(st.integers(0, min(len(data), 200)), st.integers(0, len(data)))
    for _ in range(draw(st.sampled_from((0, 1, 1, 1, 2, 4)))):
        at, length = min(draw(position), len(data)), draw(st.integers(1, 16))
        match draw(st.sampled_from(("byte",) * 4 + ("extreme",) * 3 + ("remove", "insert", "copy", "cut"))):
            case "byte":
                data[at : at + 1] = bytes([draw(st.integers(0, 255))])
            case "extreme":
                value = draw(st.sampled_from(_EXTREMES))
                data[at : at + len(value)] = value
            case "remove":
                del data[at : at + length]
            case "insert":
                data[at:at] = draw(st.binary(min_size=1, max_size=length))
            case "copy":
                begin = min(draw(position), len(data))
                data[at : at + length] = data[begin : begin + length]
            case "cut":
                del data[at:]
    return bytes(data)


@contextlib.contextmanager
def within(mib: int) -> Iterator[None]:
    """Requires the peak memory of the process to grow by no more than so many MiB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
    assert grown <= mib, f"{grown} MiB"
