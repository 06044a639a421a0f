"""Pictures that are nearly the same."""

import io

import numpy as np
from PIL import Image

from uno_jax.data.near import BITS, COLOUR, difference_hash, near_identical


def drawing(seed: int) -> Image.Image:
    """Returns a picture of 12 x 12 random fields, 96 pixels wide."""
    fields = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), np.uint8)
    return Image.fromarray(fields).resize((96, 96), Image.Resampling.BICUBIC)


def as_jpeg(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=60)
    return Image.open(buffer)


def pairs(*images: Image.Image) -> list[list[int]]:
    found = [difference_hash(np.asarray(image)) for image in images]
    hashes = np.array([bits for bits, _ in found], np.uint64)
    return near_identical(hashes, np.array([colour for _, colour in found], np.uint8)).tolist()


def test_a_picture_that_is_compressed_or_resized_is_nearly_the_same():
    assert pairs(drawing(0), drawing(1), as_jpeg(drawing(0)), drawing(1).resize((64, 64))) == [[2, 0], [3, 1]]


def test_another_colour_is_another_picture():
    red, green = (Image.new("RGB", (20, 20), colour) for colour in ((200, 0, 0), (0, 200, 0)))
    assert pairs(red, green) == []
    assert pairs(red, red) == [[1, 0]]


def test_pairs_are_those_of_comparing_all():
    random = np.random.default_rng(0)
    hashes = random.integers(0, 2**63, 20, np.uint64)[random.integers(0, 20, 300)]
    for _ in range(2):
        hashes ^= np.uint64(1) << random.integers(0, 64, 300).astype(np.uint64)
    colours = random.integers(100, 112, (300, 3)).astype(np.uint8)
    expected = []
    for later in range(300):
        close = np.abs(colours[:later].astype(int) - colours[later]).max(axis=1, initial=0) <= COLOUR
        near = close & (np.bitwise_count(hashes[:later] ^ hashes[later]) <= BITS)
        expected += [[later, int(near.argmax())]] if near.any() else []
    assert len(expected) > 20
    assert near_identical(hashes, colours).tolist() == expected
