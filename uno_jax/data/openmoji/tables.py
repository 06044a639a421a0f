"""The tables of the embedded dataset: TOML files in this folder, each read once."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources
from typing import Any, NamedTuple


class GlyphTables(NamedTuple):
    """`glyphs.toml`: attributes of a drawing that follow from the emoji's code points."""

    territories: list[str]
    tones: dict[str, str]
    hair: dict[str, str]
    genders: dict[str, str]
    people: dict[str, list[str]]
    """Code point -> base emoji, gender, hair."""
    couples: dict[str, list[str]]
    """Code points without tones -> base emoji, who."""
    own_names: dict[str, str]


class TextTables(NamedTuple):
    """`text.toml`: the words of captions."""

    hours: list[str]
    plurals: list[str]
    singulars: list[str]
    no_article: list[str]
    with_the: list[str]
    needs_article: list[str]
    unwanted_keywords: list[str]
    unwanted_aliases: list[str]
    """Regular expressions."""
    styles: list[str]
    meanings: list[str]
    skin: dict[str, str]
    other_skin: dict[str, str]
    hair: dict[str, str]
    other_hair: dict[str, str]
    other_people: dict[str, str]
    activities: dict[str, list[str]]
    """Words of a name -> words of the prompt, other words."""
    professions: dict[str, str]
    couples: dict[str, list[str]]
    """Base -> the prompt, other words."""
    palette: dict[str, list[str]]
    """Colour -> its fills, such as `#ea5a47`."""


class Phrases(NamedTuple):
    """`phrases.toml`: complete phrases for some names."""

    prompts: dict[str, str]
    other_words: dict[str, str]


class Series(NamedTuple):
    """Drawings of the same thing with different values of an attribute."""

    kind: str
    instructions: str
    """Key of `EditTables.instructions`."""
    values: dict[str, str]
    """Stem of the drawing, without tones or a closing FE0F -> its value."""
    thing: str = ""
    toned: bool = False
    """Whether the drawings also come in skin tones. A pair then has one tone."""


class EditTables(NamedTuple):
    """`edits.toml`: drawings that form editing pairs."""

    no_gender: list[str]
    faces: list[str]
    cats: list[str]
    states: list[list[str]]
    """Source, target, instruction, and instruction for the reverse edit."""
    instructions: dict[str, list[str]]
    """Templates with `{value}` and, in some, `{thing}`."""
    series: list[Series]


@cache
def glyph_tables() -> GlyphTables:
    return GlyphTables(**_read("glyphs.toml"))


@cache
def text_tables() -> TextTables:
    return TextTables(**_read("text.toml"))


@cache
def phrases() -> Phrases:
    return Phrases(**_read("phrases.toml"))


@cache
def edit_tables() -> EditTables:
    tables = _read("edits.toml")
    return EditTables(**{**tables, "series": [Series(**series) for series in tables["series"]]})


def _read(file: str) -> dict[str, Any]:
    return tomllib.loads(resources.files(__package__).joinpath(file).read_text(encoding="utf-8"))
