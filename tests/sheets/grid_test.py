"""Tables of pictures."""

from __future__ import annotations

import numpy as np

from uno_jax.sheets.grid import Cell, Column, make_grid

SIDE = 32
RED, GREEN, BLUE = ((255, 0, 0), (0, 255, 0), (0, 0, 255))


def solid(colour: tuple[int, int, int]) -> np.ndarray:
    return np.full((4, 4, 3), colour, np.uint8)


def count(sheet: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((sheet == colour).all(axis=-1).sum())


def test_every_picture_of_every_cell_is_drawn_once_at_its_size():
    columns = [Column("one", ("a",)), Column("two", ("b", "c"))]
    rows = [[Cell([solid(RED)]), Cell([solid(GREEN), solid(BLUE)])], [Cell([solid(RED)]), Cell([solid(RED)] * 2)]]
    sheet = np.asarray(make_grid("title", columns, rows, SIDE))
    assert [count(sheet, colour) for colour in (RED, GREEN, BLUE)] == [4 * SIDE**2, SIDE**2, SIDE**2]


def test_cells_of_a_column_are_below_each_other():
    columns = [Column("", ("a", "b")), Column("x")]
    rows = [[Cell([solid(RED)]), Cell([solid(BLUE)])], [Cell([solid(RED)] * 2), Cell([solid(BLUE)])]]
    sheet = np.asarray(make_grid("", columns, rows, SIDE))
    across = np.flatnonzero((sheet == BLUE).all(axis=-1).any(axis=0))
    assert len(across) == SIDE


def test_texts_below_the_pictures_make_a_row_taller():
    def height(*texts: str) -> int:
        return make_grid("", [Column("")], [[Cell([solid(RED)], texts)]], SIDE).height

    assert height() < height("word") < height("word", "word") < height("many words " * 4, "word")
