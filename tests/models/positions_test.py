"""Conversion of pixels to encoder inputs."""

import numpy as np

from uno_jax.models.positions import pixels_to_float


def test_pixels_map_to_minus_one_and_one():
    values = pixels_to_float(np.array([0, 255], np.uint8))
    np.testing.assert_array_equal(values, np.array([-1, 1], np.float32))
    assert values.dtype == np.float32
