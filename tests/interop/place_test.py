"""Leaves are read from files onto devices in pieces, for any pieces and devices."""

from __future__ import annotations

import itertools
import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from tests.helpers.public_model import first_device
from uno_jax.interop.names import CONVOLUTION, LINEAR, TABLE, VECTOR, TensorName, leaf_shape
from uno_jax.interop.place import place_leaf, read_leaf, split
from uno_jax.interop.tensor_files import TensorFiles
from uno_jax.process.errors import CheckpointError


@given(
    bounds=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 6)), min_size=1, max_size=4),
    most=st.integers(1, 400),
)
def test_pieces_cover_a_box_once_and_respect_the_maximum_size(bounds, most):
    box = tuple((first, first + length) for first, length in bounds)
    pieces = list(split(box, 4, most))
    points = [point for piece in pieces for point in itertools.product(*(range(*cut) for cut in piece))]
    assert sorted(points) == list(itertools.product(*(range(*cut) for cut in box)))
    for piece in pieces:
        assert math.prod(last - first for first, last in piece) * 4 <= max(most, 4)


def entries_of(kind: str) -> list[TensorName]:
    """Returns the tensors that fill one leaf."""
    if kind == "table":
        return [TensorName("t", (7, 6), ("t",), TABLE)]
    if kind == "convolution":
        return [TensorName("c", (4, 3, 2, 2), ("c",), CONVOLUTION)]
    transform, shape = (LINEAR, (6, 5)) if kind == "stacked" else (VECTOR, (6,))
    return [TensorName(f"{kind}.{layer}", shape, (kind,), transform, layer) for layer in range(3)]


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Bfloat16 files with tensors of every kind, and the expected leaves."""
    directory = tmp_path_factory.mktemp("stored")
    generator = np.random.default_rng(0)
    tensors, expected = {}, {}
    for kind in ("table", "convolution", "stacked", "vectors"):
        entries = entries_of(kind)
        made = [generator.normal(size=entry.public_shape).astype(ml_dtypes.bfloat16) for entry in entries]
        tensors |= {entry.public: tensor for entry, tensor in zip(entries, made, strict=True)}
        ours = [entry.to_ours(tensor) for entry, tensor in zip(entries, made, strict=True)]
        expected[kind] = ours[0] if entries[0].layer is None else np.stack(ours)
    save_file(tensors, directory / "some.safetensors")
    return TensorFiles.find(directory, "some.safetensors"), expected


@pytest.mark.parametrize("kind", ["table", "convolution", "stacked", "vectors"])
@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float32])
@pytest.mark.parametrize("piece_bytes", [1, 24, 60, 10_000])
def test_a_leaf_does_not_depend_on_the_piece_size(stored, kind, dtype, piece_bytes):
    files, expected = stored
    leaf = place_leaf(files, entries_of(kind), np.dtype(dtype), first_device(()), piece_bytes)
    assert leaf.dtype == dtype
    np.testing.assert_array_equal(np.asarray(leaf), expected[kind].astype(dtype))


@given(data=st.data())
def test_any_part_of_a_leaf_can_be_read(stored, data):
    files, expected = stored
    kind = data.draw(st.sampled_from(sorted(expected)))
    cuts = [
        data.draw(st.tuples(st.integers(0, size), st.integers(0, size)).map(sorted).map(tuple))
        for size in leaf_shape(entries_of(kind))
    ]
    part = read_leaf(files, entries_of(kind), np.dtype(ml_dtypes.bfloat16), tuple(cuts))
    np.testing.assert_array_equal(part, expected[kind][tuple(slice(*cut) for cut in cuts)])


PATTERNS = [0x0001, 0x8001, 0x007F, 0x8000, 0x0080, 0x7F7F]  # subnormal, negative zero, smallest and largest normal


def test_numbers_keep_their_bits(tmp_path):
    bits = np.resize(np.asarray(PATTERNS, np.uint16), (6, 5))
    save_file({"stacked.0": bits.view(ml_dtypes.bfloat16)}, tmp_path / "some.safetensors")
    files, entries = TensorFiles.find(tmp_path, "some.safetensors"), entries_of("stacked")[:1]
    for piece_bytes in (8, 10_000):
        leaf = place_leaf(files, entries, np.dtype(ml_dtypes.bfloat16), first_device(()), piece_bytes)
        np.testing.assert_array_equal(np.asarray(leaf).view(np.uint16)[0], bits.T)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("value", [np.nan, -np.inf, np.inf])
def test_a_non_finite_weight_is_named_with_its_tensor(tmp_path, dtype, value):
    tensors = {f"stacked.{layer}": np.full((6, 5), ml_dtypes.finfo(dtype).max, dtype) for layer in range(3)}
    entries = entries_of("stacked")
    save_file(tensors, tmp_path / "some.safetensors")
    read_leaf(TensorFiles.find(tmp_path, "some.safetensors"), entries, np.dtype(dtype))
    tensors["stacked.1"][2, 3] = value
    save_file(tensors, tmp_path / "some.safetensors")
    with pytest.raises(
        CheckpointError, match=rf"some\.safetensors: tensor stacked\.1 contains a non-finite value \({value}\)"
    ):
        read_leaf(TensorFiles.find(tmp_path, "some.safetensors"), entries, np.dtype(dtype))
