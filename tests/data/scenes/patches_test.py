"""Labels of the patches of a scene."""

import numpy as np

from uno_jax.data.scenes.patches import patch_labels
from uno_jax.data.scenes.scene import COLOURS, SHAPES, Ground, Place, Scene, Thing

STAR = Thing("star", "green", "small", Place(0.25, 0.75))
SCENE = Scene((STAR,), Ground("white", "plain"))


def test_a_thing_is_on_the_patches_in_its_square_and_nowhere_else():
    labels = patch_labels(SCENE, 8)
    on = np.zeros((8, 8), bool)
    on[5:7, 1:3] = True  # its sides are at 0.12 and 0.38, and at 0.62 and 0.88
    np.testing.assert_array_equal(labels.shape.reshape(8, 8) > 0, on)
    assert set(labels.shape[labels.shape > 0]) == {1 + SHAPES.index("star")}
    assert set(labels.colour[labels.colour > 0]) == {1 + list(COLOURS).index("green")}
    assert set(labels.size[labels.size > 0]) == {1}


def test_a_patch_points_right_and_down_to_the_centre_of_its_thing():
    centre = patch_labels(SCENE, 8).centre.reshape(8, 8, 2)
    np.testing.assert_allclose(centre[5, 1], (0.5, 0.5))
    np.testing.assert_allclose(centre[6, 2], (-0.5, -0.5))
    np.testing.assert_array_equal(centre[0, 0], (0, 0))
