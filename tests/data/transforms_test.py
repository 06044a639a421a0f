"""Image transforms, patches and positions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uno_jax.batch import position_ids
from uno_jax.data.transforms import ImageTransform, patchify


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((96, 96), (96, 96)),
        ((300, 150), (96, 48)),  # the long side shrinks to max_side
        ((20, 30), (32, 48)),  # the short side grows to min_side
        ((72, 72), (64, 64)),  # 72 / 16 = 4.5 rounds to even
        ((200, 24), (96, 16)),  # the limit on the long side wins over min_side
    ],
)
def test_size_rule(size, expected):
    assert ImageTransform(96, 32, 16).size(*size) == expected


def test_more_pixels_than_the_bound_shrink_both_sides_by_the_ratio_of_areas():
    assert ImageTransform(96, 32, 16, max_pixels=96 * 96).size(96, 96) == (96, 96)
    assert ImageTransform(96, 32, 16, max_pixels=96 * 48).size(96, 96) == (48, 48)


@given(width=st.integers(1, 3000), height=st.integers(1, 3000), max_side=st.integers(32, 500))
def test_sides_are_multiples_of_the_stride_and_bounded(width, height, max_side):
    transform = ImageTransform(max_side, 20, 14)
    for side in transform.size(width, height):
        assert side % 14 == 0
        assert 14 <= side <= transform.largest_side


@given(width=st.integers(1, 3000), height=st.integers(1, 3000), buckets=st.integers(1, 6))
def test_pictures_of_any_size_have_one_of_the_sizes_of_the_buckets(width, height, buckets):
    transform = ImageTransform(96, 32, 16, buckets=buckets)
    sizes = transform.sizes()
    assert len(sizes) <= 2 * buckets - 1
    assert all(max(size) == 96 and min(size) >= 32 for size in sizes)
    assert transform.size(width, height) in sizes


@pytest.mark.parametrize(
    ("size", "expected"),
    [((96, 96), (96, 96)), ((40, 24), (96, 48)), ((100, 290), (32, 96)), ((9, 3000), (32, 96)), ((1, 1), (96, 96))],
)
def test_a_picture_goes_to_the_bucket_with_the_nearest_aspect_ratio(size, expected):
    assert ImageTransform(96, 32, 16, buckets=3).size(*size) == expected


def test_what_hangs_over_a_bucket_is_cropped_on_both_sides():
    pixels = np.zeros((32, 40, 3), np.uint8)
    pixels[:, :4] = pixels[:, -4:] = 255
    resized = ImageTransform(32, 32, 16, buckets=1).resize(pixels)
    assert resized.shape == (32, 32, 3)
    assert not resized.any()


def test_one_pixel_fills_a_bucket():
    assert ImageTransform(32, 16, 16, buckets=2).resize(np.full((1, 1, 3), 7, np.uint8)).shape == (32, 32, 3)


def test_buckets_beyond_the_limit_of_pixels_are_rejected():
    with pytest.raises(ValueError, match="max_pixels=1000"):
        ImageTransform(96, 32, 16, max_pixels=1000, buckets=2)


def test_bounds_that_contradict_each_other_are_rejected():
    with pytest.raises(ValueError, match="min_side <= max_side"):
        ImageTransform(32, 64, 16)


def test_a_picture_of_the_right_size_keeps_its_pixels():
    pixels = np.arange(32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3)
    np.testing.assert_array_equal(ImageTransform(96, 32, 16).resize(pixels), pixels)


def test_patches_go_row_by_row_and_flatten_row_column_channel():
    pixels = np.arange(2 * 4 * 3, dtype=np.uint8).reshape(2, 4, 3)
    expected = [[0, 1, 2, 3, 4, 5, 12, 13, 14, 15, 16, 17], [6, 7, 8, 9, 10, 11, 18, 19, 20, 21, 22, 23]]
    np.testing.assert_array_equal(patchify(pixels, 2), expected)


def test_a_picture_that_is_not_made_of_patches_is_rejected():
    with pytest.raises(ValueError, match="5x4 pixels"):
        patchify(np.zeros((4, 5, 3), np.uint8), 2)


def test_positions_index_a_table_row_by_row():
    np.testing.assert_array_equal(position_ids(2, 3, side=8), [0, 1, 2, 8, 9, 10])


def test_a_grid_larger_than_its_table_is_rejected():
    with pytest.raises(ValueError, match="2x9 patches"):
        position_ids(2, 9, side=8)
