"""Pictures of scenes."""

import numpy as np
import pytest

from uno_jax.data.scenes.draw import draw_scene
from uno_jax.data.scenes.scene import COLOURS, GROUND_KINDS, GROUNDS, SHAPES, SIZES, Ground, Place, Scene, Thing


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", SIZES)
def test_a_thing_lies_within_its_bounding_square(shape, size):
    scene = Scene((Thing(shape, "red", size, Place(0.4, 0.6)),), Ground("white", "plain"))
    rows, columns = (draw_scene(scene, 200) != 255).any(-1).nonzero()
    half = 200 * SIZES[size] / 2
    assert 80 - half - 1 <= columns.min() < columns.max() <= 80 + half
    assert 120 - half - 1 <= rows.min() < rows.max() <= 120 + half
    assert rows.max() - rows.min() > 1.6 * half


@pytest.mark.parametrize("colour", COLOURS)
def test_a_thing_has_its_colour(colour):
    scene = Scene((Thing("square", colour, "small", Place(0.5, 0.5)),), Ground("dark", "texture"))
    assert draw_scene(scene, 64)[32, 32].tolist() == list(COLOURS[colour])


@pytest.mark.parametrize("name", GROUNDS)
@pytest.mark.parametrize(("kind", "colours"), zip(GROUND_KINDS, (1, 10, 2), strict=True))
def test_a_ground_has_the_colours_of_its_kind(name, kind, colours):
    picture = draw_scene(Scene((), Ground(name, kind)), 64)
    assert picture[0, 0].tolist() == pytest.approx(GROUNDS[name][0], abs=1)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) >= colours
    assert (picture == picture[0, 0]).all() == (kind == "plain")
