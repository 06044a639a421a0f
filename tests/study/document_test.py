"""A document as Markdown and as one HTML file."""

from __future__ import annotations

from PIL import Image

from uno_jax.study.document import Figure, Heading, Listing, Paragraph, Table, markdown, one_file_html

BLOCKS = [
    Heading("Title <1>", level=1),
    Paragraph("Text with `code` & more."),
    Table(["", "a"], [["row", "1"], ["x|y", "2"]]),
    Figure("figures/one.png", "a picture"),
    Listing("as\n  it is"),
]


def test_markdown_links_its_pictures():
    assert markdown(BLOCKS).splitlines() == [
        "# Title <1>",
        "",
        "Text with `code` & more.",
        "",
        "|  | a |",
        "| --- | ---: |",
        "| row | 1 |",
        "| x/y | 2 |",
        "",
        "![a picture](figures/one.png)",
        "",
        "```",
        "as",
        "  it is",
        "```",
    ]


def test_html_needs_no_other_file(tmp_path):
    (tmp_path / "figures").mkdir()
    Image.new("RGB", (2, 2)).save(tmp_path / "figures" / "one.png")
    page = one_file_html(BLOCKS, tmp_path)
    assert "figures/one.png" not in page
    assert 'src="data:image/png;base64,' in page


def test_html_shows_text_as_it_is_written(tmp_path):
    page = one_file_html(BLOCKS[:3], tmp_path)
    assert "<h1>Title &lt;1&gt;</h1>" in page
    assert "<p>Text with <code>code</code> &amp; more.</p>" in page
    assert "<tr><td>x|y</td><td>2</td></tr>" in page
