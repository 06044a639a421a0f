"""Position features, and conversion of pixels to encoder inputs."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from uno_jax.models.positions import pixels_to_float, sincos_2d, sincos_table_2d


@settings(max_examples=20)
@given(st.integers(1, 9), st.integers(1, 6), st.data())
def test_looked_up_positions_are_rows_of_the_table(side, quarter, data):
    positions = np.array(data.draw(st.lists(st.integers(0, side**2 - 1), min_size=1, max_size=5)))
    found = np.asarray(sincos_2d(positions, side, 4 * quarter))
    np.testing.assert_array_equal(found, sincos_table_2d(side, 4 * quarter)[positions])
    assert found.dtype == np.float32


def test_pixels_map_to_minus_one_and_one():
    values = pixels_to_float(np.array([0, 255], np.uint8))
    np.testing.assert_array_equal(values, np.array([-1, 1], np.float32))
    assert values.dtype == np.float32
