"""CSV files: every row is checked, and rejections name line, field and remedy."""

import pytest

from tests.helpers.made_up_sources import read_all, square, values_of
from uno_jax.data.sources.csv_table import CSV
from uno_jax.data.sources.source import DataSourceError


def written(tmp_path, content):
    (tmp_path / "images").mkdir()
    for number in range(3):
        (tmp_path / "images" / f"{number}.png").write_bytes(square(number))
    path = tmp_path / "a.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return {"csv": path, "images": tmp_path / "images"}


@pytest.mark.parametrize("delimiter", [",", "\t", ";"])
def test_rows_are_read_with_any_usual_delimiter(tmp_path, delimiter):
    lines = "\ufeffid,image,prompt\n1,0.png,one\n\n2,1.png,two\n".replace(",", delimiter)
    records, rejections = read_all(CSV, **written(tmp_path, lines))
    assert [(record.id, record.prompt, record.image) for record in records] == [
        ("1", "one", square(0)),
        ("2", "two", square(1)),
    ]
    assert rejections == []


def test_a_cell_holds_one_caption_or_a_list_in_json_and_quoted_texts_may_have_several_lines(tmp_path):
    text = 'image,prompt,captions\n0.png,"one,\nthing",a text\n1.png,two,"[""a"", ""b""]"\n'
    one, two = read_all(CSV, **written(tmp_path, text))[0]
    assert (one.id, one.prompt, one.captions) == ("a.csv/2", "one,\nthing", ("a text",))
    assert (two.id, two.captions) == ("a.csv/4", ("a", "b"))


def test_an_empty_cell_is_absent_and_an_empty_question_is_a_question(tmp_path):
    text = "image,task,prompt,answer,sources\n0.png,understanding,,red,\n1.png,editing,change it,,0.png\n"
    question, edit = read_all(CSV, **written(tmp_path, text))[0]
    assert (question.prompt, question.answer) == ("", "red")
    assert edit.sources == (square(0),)


@pytest.mark.parametrize(
    ("row", "field", "problem"),
    [
        (b"../a.csv,x", "image", "leads out of the image folder"),
        (b"/etc/passwd,x", "image", "absolute path"),
        (b"0.png,", "prompt", "missing"),
        (b"0.png", "(row)", "1 cells for 2 columns"),
        (b"0.png,x,y", "(row)", "3 cells for 2 columns"),
        (b"0.png,\xff", "(row)", "not UTF-8"),
        (b'0.png,"' + b"x" * 2**21 + b'"', "(row)", "a line of more than 1,048,576 bytes"),
    ],
)
def test_an_invalid_row_is_rejected_by_line_and_field(tmp_path, row, field, problem):
    content = b"image,prompt\n0.png,before\n" + row + b"\n1.png,after\n"
    records, [rejection] = read_all(CSV, **written(tmp_path, content))
    assert [record.prompt for record in records] == ["before", "after"]
    assert (rejection.file, rejection.line, rejection.field) == ("a.csv", 3, field)
    assert problem in rejection.problem


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is no list of different column names"),
        (b"\xff\xfe", "is no list of different column names"),
        ("image,image\n", "is no list of different column names"),
        ("image,text\n", "columns that are no fields: text"),
        ("prompt\n", "no column of pictures"),
    ],
)
def test_a_first_line_without_usable_columns_is_refused(tmp_path, content, message):
    with pytest.raises(DataSourceError, match=message):
        CSV.identity(values_of(CSV, **written(tmp_path, content)))
