"""The contact sheet shows every record with its texts."""

import io
import math

import numpy as np
import pytest
from PIL import Image

from uno_jax.data.record import Record
from uno_jax.sheets.records import load_font, make_contact_sheet, text_image


def picture(colour, size=(8, 8)):
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


IMAGE = Record("1", "text_to_image", picture("red"), "a red square", ("crimson",))
EDIT = Record("2", "editing", picture("lime"), "make it green", ("a green one",), (picture("blue"),))
QUESTION = Record("3", "understanding", picture("yellow", (16, 4)), "which colour?", answer="yellow")


def colours(sheet):
    return {tuple(colour) for colour in np.asarray(sheet).reshape(-1, 3).tolist()}


def test_the_pictures_of_every_task_are_on_the_sheet():
    drawn = colours(make_contact_sheet([IMAGE, EDIT, QUESTION], side=32))
    assert {(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)} <= drawn


def test_longer_texts_make_a_taller_sheet():
    long = Record("1", "text_to_image", picture("red"), "a word " * 20)
    assert make_contact_sheet([long]).height > make_contact_sheet([IMAGE]).height


def ink(text, width=100):
    """Returns the mask of pixels that are not white, `[height, width]`."""
    return (np.asarray(text_image(text, load_font(12), width, "black")) < 128).any(axis=-1)


def test_a_word_wider_than_the_sheet_is_wrapped():
    assert ink("0" * 30).sum() == ink("0" * 30, width=1000).sum()


def test_omitted_text_is_marked_even_if_the_last_line_is_full():
    line = "word word"
    width = math.ceil(load_font(12).getlength(line))
    four, five = (ink(" ".join([line] * count), width) for count in (4, 5))
    assert four.shape == five.shape
    assert (four != five).any()


def test_more_records_than_columns_use_more_rows():
    assert make_contact_sheet([IMAGE] * 3, columns=2).height > make_contact_sheet([IMAGE] * 2, columns=2).height


def test_no_records_is_an_error():
    with pytest.raises(ValueError, match="at least one record"):
        make_contact_sheet([])
