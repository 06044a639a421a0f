"""Checksums notice every change of an array, and do not depend on where it is computed."""

from __future__ import annotations

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uno_jax.training.checksums import check_arrays, check_on_device, check_on_host

DTYPES = (np.float32, ml_dtypes.bfloat16, np.float16, np.int32, np.uint8, np.bool_)


def checksum(array: np.ndarray) -> int:
    return check_arrays({"x": array})["x"].checksum


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (7,), (3, 5, 2)])
def test_the_checksum_on_a_device_is_that_on_the_host(dtype, shape):
    array = np.random.default_rng(0).normal(size=shape).astype(dtype)
    total, finite = check_on_device(jnp.asarray(array))
    assert (int(total), bool(finite)) == check_on_host(array)


def test_the_checksum_does_not_depend_on_the_size_of_the_pieces():
    array = np.random.default_rng(0).normal(size=(3, 70_000)).astype(np.float32)
    total, _ = check_on_device(jnp.asarray(array))
    assert int(total) == checksum(array)


@given(st.data())
@settings(max_examples=200)
def test_a_flipped_bit_changes_the_checksum(data):
    array = np.frombuffer(data.draw(st.binary(min_size=4, max_size=64).filter(lambda b: len(b) % 4 == 0)), np.float32)
    changed = bytearray(array.tobytes())
    bit = data.draw(st.integers(0, 8 * len(changed) - 1))
    changed[bit // 8] ^= 1 << bit % 8
    assert checksum(np.frombuffer(bytes(changed), np.float32)) != checksum(array)


def test_exchanged_elements_change_the_checksum():
    assert checksum(np.asarray([1.0, 2.0], np.float32)) != checksum(np.asarray([2.0, 1.0], np.float32))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_noticed(value):
    checks = check_arrays({"good": np.ones(3, np.float32), "bad": np.asarray([1.0, value], np.float32)})
    assert (checks["good"].finite, checks["bad"].finite) == (True, False)
