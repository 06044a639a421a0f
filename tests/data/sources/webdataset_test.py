"""Tar files of WebDataset: read in bounded memory, and nothing leads out of the archive."""

import gzip
import json
import tarfile
import tracemalloc

import pytest

from tests.helpers.made_up_sources import add_member, read_all, square, values_of
from uno_jax.data.sources.source import DataSourceError
from uno_jax.data.sources.webdataset import WEBDATASET


def write(path, *members, mode="w"):
    """Writes a tar file of members: name and content, or a `TarInfo` without content."""
    with tarfile.open(path, mode) as archive:
        for member in members:
            archive.addfile(member) if isinstance(member, tarfile.TarInfo) else add_member(archive, *member)
    return path


SMALL = [("0001.png", square(1)), ("0001.txt", b"a red square")]  # of 2,048 bytes, each member of 1,024
GOOD = [("0001.jpg", square(1, format="JPEG")), ("0001.txt", b"a red square\n")]


@pytest.mark.parametrize("compression", ["", "gz", "bz2", "xz"])
def test_a_picture_and_a_text_of_one_name_are_a_record(tmp_path, compression):
    path = write(tmp_path / "a.tar", *GOOD, ("0002.png", square(2)), ("0002.txt", b"two"), mode=f"w:{compression}")
    records, rejections = read_all(WEBDATASET, webdataset=path)
    assert rejections == []
    assert [(record.id, record.prompt, record.image) for record in records] == [
        ("0001", "a red square", square(1, format="JPEG")),
        ("0002", "two", square(2)),
    ]


def test_the_fields_of_a_json_member_are_those_of_the_record(tmp_path):
    fields = {"caption": "a red square", "captions": ["all red"], "url": "x", "width": 8}
    path = write(tmp_path / "a.tar", GOOD[0], ("0001.json", json.dumps(fields).encode()))
    [record], _ = read_all(WEBDATASET, webdataset=path, columns="prompt=caption", ignore="url,width")
    assert (record.prompt, record.captions) == ("a red square", ("all red",))


def test_pictures_of_a_list_are_members_with_numbers(tmp_path):
    path = write(
        tmp_path / "a.tar",
        ("e.json", b'{"task": "editing", "prompt": "join them"}'),
        ("e.image.png", square(3)),
        ("e.sources.1.png", square(2)),
        ("e.sources.0.png", square(1)),
    )
    [record], _ = read_all(WEBDATASET, webdataset=path)
    assert (record.sources, record.image) == ((square(1), square(2)), square(3))


def named(name, **changes):
    member = tarfile.TarInfo(name)
    for key, value in changes.items():
        setattr(member, key, value)
    return member


@pytest.mark.parametrize(
    ("members", "field", "problem"),
    [
        ([("../../evil.png", b"x")], "(name)", "leads out of the archive"),
        ([("a/../../evil.png", b"x")], "(name)", "leads out of the archive"),
        ([("/etc/evil.png", b"x")], "(name)", "leads out of the archive"),
        ([("C:\\evil.png", b"x")], "(name)", "leads out of the archive"),
        ([("..\\evil.png", b"x")], "(name)", "leads out of the archive"),
        ([named("x.png", type=tarfile.SYMTYPE, linkname="/etc/passwd")], "(name)", "is no file"),
        ([named("x.png", type=tarfile.LNKTYPE, linkname="0001.jpg")], "(name)", "is no file"),
        ([named("x.png", type=tarfile.CHRTYPE)], "(name)", "is no file"),
        ([("README", b"x")], "(name)", "no key and ending"),
        ([("2.png", b""), ("2.txt", b"x")], "image", "the file is empty"),
        ([("2.png", square(1)), ("2.txt", b"\xff")], "txt", "not UTF-8"),
        ([("2.png", square(1)), ("2.json", b"[1]")], "json", "not an object"),
        ([("2.png", square(1)), ("2.png", square(1))], "png", "twice in the sample"),
        ([("2.png", square(1)), ("2.cls", b"1")], "(sample)", "columns that are no fields: cls"),
        ([("2.png", square(1)), ("2.txt", b"x" * (2**20 + 1))], "txt", "more than the maximum of 1,048,576"),
        ([("2.png", square(1))], "prompt", "missing"),
        ([("2.png", square(1)), ("2.json", b'{"id": "../x", "prompt": "y"}')], "id", "has a part '..'"),
        ([("0001.png", square(1)), ("0001.txt", b"again")], "id", "a.tar:1 already has the id '0001'"),
    ],
)
def test_a_member_or_sample_that_cannot_be_used_is_rejected_and_the_others_are_read(tmp_path, members, field, problem):
    between = [("b.png", square(5)), ("b.txt", b"between")]
    path = write(tmp_path / "a.tar", *GOOD, *between, *members, ("z.png", square(6)), ("z.txt", b"last"))
    records, [rejection] = read_all(WEBDATASET, webdataset=path)
    assert [record.id for record in records] == ["0001", "b", "z"]
    assert (rejection.file, rejection.line, rejection.field) == ("a.tar", 3, field)
    assert problem in rejection.problem


def test_a_member_of_an_absurd_size_is_rejected_without_reading_it(tmp_path):
    with gzip.open(tmp_path / "a.tar.gz", "wb") as file:
        file.write(write(tmp_path / "a.tar", *SMALL).read_bytes()[:2048])
        file.write(named("2.txt", size=2**27).tobuf())
        for _ in range(2**7):
            file.write(bytes(2**20))
        file.write(named("3.png", size=2**40).tobuf())
    tracemalloc.start()
    records, rejections = read_all(WEBDATASET, webdataset=tmp_path / "a.tar.gz")
    assert tracemalloc.get_traced_memory()[1] < 2**26
    tracemalloc.stop()
    assert [record.id for record in records] == ["0001"]
    assert [rejection.problem[:19] for rejection in rejections[:2]] == ["134,217,728 bytes, ", "1,099,511,627,776 b"]


def test_a_header_of_an_absurd_size_is_refused_in_bounded_memory(tmp_path):
    with gzip.open(tmp_path / "a.tar.gz", "wb") as file:
        file.write(write(tmp_path / "a.tar", *SMALL).read_bytes()[:2048])
        file.write(named("pax", type=tarfile.XHDTYPE, size=2**27).tobuf())
        for _ in range(2**7):
            file.write(bytes(2**20))
    tracemalloc.start()
    records, [rejection] = read_all(WEBDATASET, webdataset=tmp_path / "a.tar.gz")
    assert tracemalloc.get_traced_memory()[1] < 2**26
    tracemalloc.stop()
    assert [record.id for record in records] == ["0001"]
    assert "a header of 134,217,728 bytes" in rejection.problem


def test_a_cut_file_is_read_up_to_the_cut(tmp_path):
    pairs = [(f"{n}.{kind}", content) for n in range(9) for kind, content in (("png", square(n)), ("txt", b"thing"))]
    whole = write(tmp_path / "a.tar.gz", *pairs, mode="w:gz").read_bytes()
    (tmp_path / "a.tar.gz").write_bytes(whole[: len(whole) * 2 // 3])
    records, rejections = read_all(WEBDATASET, webdataset=tmp_path)
    assert [record.id for record in records] == [str(number) for number in range(len(records))]
    assert 0 < len(records) < 9
    assert "cannot be read from here on" in rejections[-1].problem


@pytest.mark.parametrize("content", [b"", b"no tar file" * 100, b"\x1f\x8b no gzip"])
def test_a_file_without_a_sample_is_refused_before_anything_is_read(tmp_path, content):
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(DataSourceError, match=r"a\.tar: no sample of a tar file can be read"):
        WEBDATASET.identity(values_of(WEBDATASET, webdataset=tmp_path))


def test_endings_that_are_no_fields_are_refused_before_anything_is_read(tmp_path):
    path = write(tmp_path / "a.tar", *GOOD, ("0001.cls", b"3"))
    with pytest.raises(DataSourceError, match=r"sample '0001', has columns that are no fields: cls.*--ignore=cls"):
        WEBDATASET.identity(values_of(WEBDATASET, webdataset=path))


def test_many_members_of_one_sample_are_refused(tmp_path):
    members = [(f"2.sources.{number}.png", b"x") for number in range(300)]
    records, rejections = read_all(WEBDATASET, webdataset=write(tmp_path / "a.tar", *GOOD, *members))
    assert [record.id for record in records] == ["0001"]
    assert {rejection.field for rejection in rejections} == {"(sample)"}
