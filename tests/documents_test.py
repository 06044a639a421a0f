"""Pages of documentation: links, commands, configs and tests that they name exist, and nothing is left to fill in."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted(path for folder in (ROOT, ROOT / "docs", ROOT / "pretrained") for path in folder.glob("*.md"))
LINK = re.compile(r"\]\(([^)\s]+)\)")
COMMAND = re.compile(r"python -m (uno_jax(?:\.\w+)*)")
FILE = re.compile(r"\b(?:configs|tests|benchmarks|launch)/[a-z0-9_/]+\.(?:py|sh)\b")  # NAME in capitals is the reader's
PLACEHOLDER = re.compile(r"@[A-Z_]+@|\b(?:TODO|FIXME|XXX)\b")

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def anchors(page: Path) -> set[str]:
    """Returns the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pages
def test_every_link_leads_to_a_file_and_a_heading(page):
    wrong = []
    for link in LINK.findall(page.read_text()):
        if link.startswith(("http:", "https:", "mailto:")):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            wrong.append(link)
    assert not wrong


@pages
def test_every_command_and_file_that_is_named_exists(page):
    text = page.read_text()
    assert [name for name in set(COMMAND.findall(text)) if importlib.util.find_spec(name) is None] == []
    assert [name for name in set(FILE.findall(text)) if not (ROOT / name).exists()] == []


@pages
def test_nothing_is_left_to_fill_in(page):
    assert PLACEHOLDER.findall(page.read_text()) == []
