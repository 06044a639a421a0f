"""Ahead-of-time compilation of the full-size attention kernel for every kind of TPU, and its memory."""

from __future__ import annotations

import jax.numpy as jnp
import pytest

from benchmarks.attention import CASES, SLICES, compiled, kernel

pytest.importorskip("libtpu", reason="compiling for a TPU needs libtpu: pip install -r requirements-tpu.txt")


@pytest.mark.slow
@pytest.mark.parametrize("chip", SLICES)
@pytest.mark.parametrize("name", CASES)
def test_the_kernel_compiles_and_needs_less_than_half_an_array_of_scores(name, chip):
    case = CASES[name]
    _, program = compiled(kernel, case, chip)
    scores = case.batch * case.heads * case.tokens**2 * jnp.dtype(case.dtype).itemsize
    assert program.memory_analysis().temp_size_in_bytes < scores / 2
