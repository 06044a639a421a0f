"""Captions of OpenMoji drawings in natural words: the prompt, and descriptions in other words."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import numpy as np
from PIL import Image

from uno_jax.data.openmoji.glyphs import Glyph
from uno_jax.data.openmoji.phrases import OTHER_WORDS, PHRASES
from uno_jax.data.openmoji.words import (
    ACTIVITIES,
    COUPLES,
    HOURS,
    NEEDS_ARTICLE,
    NO_ARTICLE,
    PLURALS,
    PROFESSIONS,
    SINGULARS,
    UNWANTED_ALIASES,
    UNWANTED_KEYWORDS,
    WITH_THE,
)

SKIN = {tone: f"{tone} skin" for tone in ("light", "medium-light", "medium", "medium-dark", "dark")}
OTHER_SKIN = {
    "light": "a pale complexion",
    "medium-light": "a fair complexion",
    "medium": "a tan complexion",
    "medium-dark": "a brown complexion",
    "dark": "a deep brown complexion",
}
HAIR_WORDS = {
    "red": "red hair",
    "curly": "curly hair",
    "white": "white hair",
    "blond": "blond hair",
    "beard": "a beard",
    "bald": "a bald head",
}
_OTHER_HAIR = {
    "red": "ginger hair",
    "curly": "curls",
    "white": "snow-white hair",
    "blond": "fair hair",
    "beard": "facial hair",
    "bald": "no hair at all",
}
_OTHER_PEOPLE = {"man": "gentleman", "woman": "lady", "person": "somebody"}
_STYLES = (
    "a flat illustration of {phrase}{colours}",
    "a simple cartoon of {phrase}{colours}",
    "a small icon that shows {phrase}{colours}",
    "a black-outlined drawing of {phrase}{colours}",
    "a sticker that shows {phrase}{colours}",
    "an emoji of {phrase}{colours}",
)
_MEANINGS = (
    "a simple picture that stands for {words}",
    "an icon that makes one think of {words}",
    "a little drawing about {words}",
    "a symbol for {words}",
)
# The fills of OpenMoji's palette, by the word for them. Skin tones are left out: they are named by their own words.
_PALETTE = {
    "red": ("#ea5a47", "#d22f27", "#781e32"),
    "pink": ("#ffa7c0", "#e67a94"),
    "orange": ("#f1b31c", "#e27022"),
    "yellow": ("#fcea2b",),
    "green": ("#b1cc33", "#5c9e31", "#186648"),
    "blue": ("#92d3f5", "#61b2e4", "#1e50a0", "#00a2e8"),
    "purple": ("#b399c8", "#8967aa"),
    "brown": ("#a57939", "#6a462f"),
    "grey": ("#d0cfce", "#9b9b9a"),
    "black": ("#3f3f3f", "#000000"),
}


def prompt_of(glyph: Glyph) -> str:
    """The caption that is used as the prompt, such as `a woman with dark skin running, facing right`."""
    return _insert_skin(_template(glyph), [SKIN[tone] for tone in glyph.tones])


def captions_of(glyph: Glyph, picture: Image.Image) -> tuple[str, ...]:
    """Descriptions in other words, at least one, all different and none equal to the prompt.

    Args:
      glyph: what is known about the drawing.
      picture: the drawing itself, whose main colours are named.
    """
    prompt = prompt_of(glyph)
    colours = main_colours(picture, skin=bool(glyph.tones))
    coloured = f", mostly {join(colours)}" if colours else ""
    reworded = _reworded(glyph)
    style = _STYLES[choice(glyph.stem + "style", len(_STYLES))]
    candidates = [reworded] if reworded else []
    words = _meanings(glyph)
    if len(words) > 1:
        meaning = _MEANINGS[choice(glyph.stem + "meaning", len(_MEANINGS))].format(words=join(words))
        skin = join(sorted({OTHER_SKIN[tone] for tone in glyph.tones}))
        candidates.append(f"{meaning}, with {skin}" if skin else meaning + coloured)
    candidates.append(style.format(phrase=reworded or prompt, colours=coloured))
    return tuple(dict.fromkeys(text for text in candidates if text != prompt))


def main_colours(picture: Image.Image, skin: bool = False) -> tuple[str, ...]:
    """Up to two colour words, the largest area first; colours under an eighth of the drawing are not named.

    Args:
      picture: RGB, on white.
      skin: leave browns out, which may be the colour of the skin.
    """
    counted = picture.getcolors(picture.width * picture.height)
    assert counted is not None, f"Pillow counts more colours than pixels in a picture of size {picture.size}"
    counts = np.array([count for count, _ in counted], np.float64)
    values = np.array([value for _, value in counted], np.int32)
    words = [word for word in _PALETTE for _ in _PALETTE[word]]
    palette = np.array([[int(code[i : i + 2], 16) for i in (1, 3, 5)] for codes in _PALETTE.values() for code in codes])
    distance = np.square(values[:, None] - palette).sum(-1)
    nearest, close = distance.argmin(1), distance.min(1) < 300
    drawn = max(counts[(values < 250).any(1)].sum(), 1.0)
    share = dict.fromkeys(_PALETTE, 0.0)
    for index, word in enumerate(words):
        share[word] += counts[close & (nearest == index)].sum() / drawn
    share["black"] -= 0.3  # outlines are black in every drawing
    if skin:
        share["brown"] = 0.0
    named = [word for word, part in sorted(share.items(), key=lambda item: -item[1]) if part > 0.125]
    return tuple(named[:2])


def with_article(noun: str) -> str:
    """`noun` with `a`, `an`, `the`, or nothing where English has none."""
    first, last = noun.split()[0], re.split(r" (?:of|with|showing|holding|in) ", noun)[0].split()[-1]
    if noun in NO_ARTICLE or noun in PLURALS:
        return noun
    if noun in WITH_THE:
        return f"the {noun}"
    if last.endswith("s") and not last.endswith(("ss", "us")) and last not in SINGULARS:
        return noun
    vowel = first[0].lower() in "aeiou" and not re.match(r"(uni|eu|one\b|u[A-Z]|us\w)", first)
    return f"{'an' if vowel or first in ('hourglass', 'x-ray', 'SOS', 'MRI') else 'a'} {noun}"


def join(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def choice(key: str, number: int) -> int:
    """A number below `number` that depends on `key` alone, the same on every machine and in every run."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % number


def _template(glyph: Glyph) -> str:
    """The prompt with `{s}` where the skin tone goes."""
    name, facing = glyph.name, ", facing right" if glyph.facing else ""
    name = name.removesuffix(" facing right")
    if glyph.couple:
        return COUPLES[glyph.base][0].format(who=glyph.gender, s="{s}")
    if glyph.flag:
        return f"the flag of {_country(name)}"
    if name in PHRASES:
        return PHRASES[name] + facing
    if match := re.fullmatch(
        r"(one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve)(-thirty| o'clock)", name
    ):
        return f"a clock that shows {match[1]}{match[2].replace('-', ' ')}"
    if name.startswith("keycap "):
        sign = {"#": "the number sign", "*": "an asterisk"}.get(name[7:], f"the number {name[7:]}")
        return f"a keycap with {sign}"
    if name.startswith("family "):
        return _family(name.split()[1:])
    if match := re.fullmatch(r"Japanese (.*) button", name):
        return f"a Japanese sign that means {match[1]}"
    if match := re.fullmatch(r"([A-Z!]+) (button|arrow)", name):
        return f"{'a button' if match[2] == 'button' else 'an arrow'} labelled {match[1]}"
    if match := re.fullmatch(r"([ABO]+) button \(blood type\)", name):
        return f"a sign for blood type {match[1]}"
    if match := re.fullmatch(r"(deaf )?(man|woman|person)(?![\w']) ?(.*)", name):
        return _person(match[1] or "", match[2], match[3], glyph) + facing
    # Names are terse: `face with monocle` is `a face with a monocle`.
    words = name.split()
    for index in range(len(words) - 1, 0, -1):
        if words[index] in NEEDS_ARTICLE and words[index - 1] in ("with", "in", "without"):
            words[index] = with_article(words[index])
    return f"{with_article(' '.join(words))}{{s}}"


def _person(deaf: str, who: str, rest: str, glyph: Glyph) -> str:
    if glyph.hair == "bald":
        return f"a bald {who}{{s}}"
    if glyph.hair:
        return f"{with_article(who)}{{s}} with {HAIR_WORDS[glyph.hair]}"
    if rest in PROFESSIONS:
        return f"a {'male' if who == 'man' else 'female'} {rest}{{s}}"
    return f"{with_article(deaf + who)}{{s}} {ACTIVITIES.get(rest, (rest, ''))[0]}".rstrip()


def _family(members: list[str]) -> str:
    counts = {member: members.count(member) for member in dict.fromkeys(members)}
    plural = {"man": "men", "woman": "women", "child": "children"}
    named = [
        f"a{'n' if m == 'adult' else ''} {m}" if n == 1 else f"two {plural.get(m, m + 's')}" for m, n in counts.items()
    ]
    return f"a family of {join(named)}"


def _country(name: str) -> str:
    name = name.replace("&", "and")
    the = name in WITH_THE or name.startswith("United ") or name.endswith(("Islands", "Lands", "Territories"))
    return f"the {name}" if the else name


def _insert_skin(template: str, skins: Sequence[str]) -> str:
    """Puts the skin tones at `{s}`, and joins two `with`s that then follow each other."""
    if "{s}" not in template:
        return template + (f", with {skins[0]}" if skins else "")
    if len(set(skins)) <= 1:
        text = template.replace("{s}", f" with {skins[0]}" if skins else "")
        return re.sub(r"( with [\w -]+? (?:skin|complexion)) with ", r"\1 and ", text)
    return template.replace("{s}", "") + f", the left one with {skins[0]} and the right one with {skins[1]}"


def _reworded(glyph: Glyph) -> str:
    """The prompt said otherwise, or an empty string."""
    skins = [OTHER_SKIN[tone] for tone in glyph.tones]
    name, facing = glyph.name.removesuffix(" facing right"), ", turned to the right" if glyph.facing else ""
    if glyph.couple:
        return _insert_skin(
            COUPLES[glyph.base][1].format(who=glyph.gender.replace("two ", "a pair of "), s="{s}"), skins
        )
    if glyph.flag:
        return f"a rectangular flag that stands for {_country(name)}"
    if name in OTHER_WORDS:
        return _insert_skin(OTHER_WORDS[name], skins) + facing
    if name.endswith((" o'clock", "-thirty")):
        hour = HOURS.index(re.split(r"[- ]", name)[0]) + 1
        return f"a round clock face reading {hour}:{'30' if name.endswith('thirty') else '00'}"
    if name.startswith("keycap "):
        return f"a square key marked {name[7:]}"
    if match := re.fullmatch(r"(deaf )?(man|woman|person)(?![\w']) ?(.*)", name):
        who, rest = match[2], match[3]
        if rest in PROFESSIONS:
            return _insert_skin(f"{with_article(_OTHER_PEOPLE[who])}{{s}} {PROFESSIONS[rest]}", skins) + facing
        if glyph.hair:
            rest = f"with {_OTHER_HAIR[glyph.hair]}"
        else:
            rest = ACTIVITIES.get(rest, (rest, rest))[1] or ACTIVITIES[rest][0]
        other = "somebody" if who == "person" else with_article(_OTHER_PEOPLE[who])
        deaf = ", who is deaf" if match[1] else ""
        return _insert_skin(f"{other}{{s}} {rest}{deaf}".replace(" ,", ","), skins).rstrip() + facing
    if name in PROFESSIONS:
        return _insert_skin(f"somebody{{s}} {PROFESSIONS[name]}", skins)
    known = set(re.findall(r"\w+", name.lower()))
    for alias in glyph.aliases:
        words = set(re.findall(r"\w+", alias.lower()))
        same_head = alias.split()[-1] == name.split()[-1]
        if UNWANTED_ALIASES.search(alias):
            continue
        if same_head and words - known and re.fullmatch(r"[a-z][a-z -]{3,}", alias):
            return _insert_skin(with_article(alias) + "{s}", skins)
    return _insert_skin(_template(glyph), skins) if skins else ""


def _meanings(glyph: Glyph) -> list[str]:
    """Up to four keywords that say something new."""
    known = set(re.findall(r"\w+", glyph.name.lower()))
    stems = {word[:4] for word in known}
    found: list[str] = []
    for word in glyph.keywords:
        if not re.fullmatch(r"[a-z][a-z ]{2,19}", word) or word in UNWANTED_KEYWORDS:
            continue
        if word in known or word[:4] in stems or any(word[:4] == other[:4] for other in found):
            continue
        found.append(word)
    return found[:4]
