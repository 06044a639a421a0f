"""Parts of a source: consecutive items that are converted once."""

from functools import partial

import pytest

from tests.helpers.made_up_records import make_record
from uno_jax.data.conversion.parts import ConvertParts, Part, about_file, is_converted, part_file, parts_of, read_about
from uno_jax.data.sources.source import Made, Rejection


def make(item):
    if item == "bad":
        return Made("train", rejections=(Rejection("a.bin", 2, "bad", "image", "damaged", "Replace it"),), id="bad")
    return Made("test", (make_record(1, "editing"), make_record(2)), id=item, file="a.bin", line=1)


@pytest.mark.parametrize(
    ("pieces", "expected", "numbers"),
    [
        ([range(5)], [(0, 1), (2, 3), (4,)], [(0, 0), (0, 1), (0, 2)]),
        ([range(3), range(1)], [(0, 1), (2,), (0,)], [(0, 0), (0, 1), (1, 0)]),
        ([()], [], []),
    ],
)
def test_a_part_has_so_many_items_of_one_piece(pieces, expected, numbers):
    parts = list(parts_of([partial(iter, piece) for piece in pieces], 2))
    assert [part.items for part in parts] == expected
    assert [part.number for part in parts] == numbers


def test_a_part_has_64_mib_or_one_item():
    items = [bytes(2**25), bytes(2**25), bytes(2**27), b"x"]
    assert [len(part.items) for part in parts_of([partial(iter, items)])] == [2, 1, 1]


def test_facts_and_records_of_a_part_are_kept(tmp_path):
    ConvertParts(tmp_path, make)(Part((0, 3), ("good", "bad")))
    good, bad = read_about(tmp_path, (0, 3))
    assert (good.split, good.id, good.file, good.line, good.rejections) == ("test", "good", "a.bin", 1, ())
    first, second = good.records
    assert (first.id, first.task, first.captions, first.sizes) == (
        "record1",
        "editing",
        ("number 1", "no 1"),
        ((16, 16), (16, 16)),
    )
    assert part_file(tmp_path, (0, 3)).stat().st_size == first.bytes + second.bytes
    assert (bad.records, bad.rejections[0].problem) == ((), "damaged")


def test_a_converted_part_is_not_converted_again(tmp_path):
    convert = ConvertParts(tmp_path, make)
    convert(Part((0, 0), ("good",)))
    before = part_file(tmp_path, (0, 0)).stat().st_mtime_ns
    assert convert(Part((0, 0), ())) == (0, 0)
    assert part_file(tmp_path, (0, 0)).stat().st_mtime_ns == before


@pytest.mark.parametrize("file", [about_file, part_file])
@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:-1],
        lambda content: b"{}",
        lambda content: content[:99] + bytes([content[99] ^ 1]) + content[100:],
    ],
)
def test_a_part_that_was_damaged_is_converted_again(tmp_path, file, damage):
    convert = ConvertParts(tmp_path, make)
    convert(Part((0, 0), ("good",)))
    damaged = file(tmp_path, (0, 0))
    whole = damaged.read_bytes()
    damaged.write_bytes(damage(whole))
    assert not is_converted(tmp_path, (0, 0))
    convert(Part((0, 0), ("good",)))
    assert is_converted(tmp_path, (0, 0))
    assert damaged.read_bytes() == whole
