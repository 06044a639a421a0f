"""Captions of OpenMoji drawings in natural language: the prompt, and paraphrases of it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import numpy as np
from PIL import Image

from uno_jax.data.openmoji.glyphs import Glyph
from uno_jax.data.openmoji.tables import phrases, text_tables


def prompt_of(glyph: Glyph) -> str:
    """Returns the prompt of a drawing, such as `a woman with dark skin running, facing right`."""
    return _insert_skin(_template(glyph), [text_tables().skin[tone] for tone in glyph.tones])


def captions_of(glyph: Glyph, picture: Image.Image) -> tuple[str, ...]:
    """Returns at least one paraphrase of the prompt. All are distinct and differ from the prompt.

    Args:
      glyph: the drawing's name and attributes.
      picture: the rendered drawing, for its main colours.
    """
    tables = text_tables()
    prompt = prompt_of(glyph)
    colours = main_colours(picture, skin=bool(glyph.tones))
    coloured = f", mostly {join(colours)}" if colours else ""
    reworded = _reworded(glyph)
    style = tables.styles[choice(glyph.stem + "style", len(tables.styles))]
    candidates = [reworded] if reworded else []
    words = _meanings(glyph)
    if len(words) > 1:
        meaning = tables.meanings[choice(glyph.stem + "meaning", len(tables.meanings))].format(words=join(words))
        skin = join(sorted({tables.other_skin[tone] for tone in glyph.tones}))
        candidates.append(f"{meaning}, with {skin}" if skin else meaning + coloured)
    candidates.append(style.format(phrase=reworded or prompt, colours=coloured))
    return tuple(dict.fromkeys(text for text in candidates if text != prompt))


def main_colours(picture: Image.Image, skin: bool = False) -> tuple[str, ...]:
    """Returns up to two colour words, largest area first, of colours that cover at least an eighth of the drawing.

    Args:
      picture: RGB, on white.
      skin: ignore browns, because they may be the skin colour.
    """
    counted = picture.getcolors(picture.width * picture.height)
    assert counted is not None, f"Pillow counts more colours than pixels in a picture of size {picture.size}"
    counts = np.array([count for count, _ in counted], np.float64)
    values = np.array([value for _, value in counted], np.int32)
    fills = [(word, code) for word, codes in text_tables().palette.items() for code in codes]
    palette = np.array([[int(code[i : i + 2], 16) for i in (1, 3, 5)] for _, code in fills])
    distance = np.square(values[:, None] - palette).sum(-1)
    nearest, close = distance.argmin(1), distance.min(1) < 300
    drawn = max(counts[(values < 250).any(1)].sum(), 1.0)
    share = dict.fromkeys((word for word, _ in fills), 0.0)
    for index, (word, _) in enumerate(fills):
        share[word] += counts[close & (nearest == index)].sum() / drawn
    share["black"] -= 0.3  # outlines are black in every drawing
    if skin:
        share["brown"] = 0.0
    named = [word for word, part in sorted(share.items(), key=lambda item: -item[1]) if part > 0.125]
    return tuple(named[:2])


def with_article(noun: str) -> str:
    """Prepends `a`, `an` or `the` to `noun`, or nothing if English uses no article."""
    tables = text_tables()
    first, last = noun.split()[0], re.split(r" (?:of|with|showing|holding|in) ", noun)[0].split()[-1]
    if noun in tables.no_article or noun in tables.plurals:
        return noun
    if noun in tables.with_the:
        return f"the {noun}"
    if last.endswith("s") and not last.endswith(("ss", "us")) and last not in tables.singulars:
        return noun
    vowel = first[0].lower() in "aeiou" and not re.match(r"(uni|eu|one\b|u[A-Z]|us\w)", first)
    return f"{'an' if vowel or first in ('hourglass', 'x-ray', 'SOS', 'MRI') else 'a'} {noun}"


def join(words: Sequence[str]) -> str:
    """Joins words as `a`, `a and b`, or `a, b and c`."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def choice(key: str, number: int) -> int:
    """Returns a number in [0, `number`) that depends only on `key`, on every machine and in every run."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % number


def _template(glyph: Glyph) -> str:
    """Returns the prompt with `{s}` as the placeholder of the skin tone."""
    tables = text_tables()
    name, facing = glyph.name, ", facing right" if glyph.facing else ""
    name = name.removesuffix(" facing right")
    if glyph.couple:
        return tables.couples[glyph.base][0].format(who=glyph.gender, s="{s}")
    if glyph.flag:
        return f"the flag of {_country(name)}"
    if name in phrases().prompts:
        return phrases().prompts[name] + facing
    if match := re.fullmatch(rf"({'|'.join(tables.hours)})(-thirty| o'clock)", name):
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
        if words[index] in tables.needs_article and words[index - 1] in ("with", "in", "without"):
            words[index] = with_article(words[index])
    return f"{with_article(' '.join(words))}{{s}}"


def _person(deaf: str, who: str, rest: str, glyph: Glyph) -> str:
    tables = text_tables()
    if glyph.hair == "bald":
        return f"a bald {who}{{s}}"
    if glyph.hair:
        return f"{with_article(who)}{{s}} with {tables.hair[glyph.hair]}"
    if rest in tables.professions:
        return f"a {'male' if who == 'man' else 'female'} {rest}{{s}}"
    return f"{with_article(deaf + who)}{{s}} {tables.activities.get(rest, (rest, ''))[0]}".rstrip()


def _family(members: list[str]) -> str:
    counts = {member: members.count(member) for member in dict.fromkeys(members)}
    plural = {"man": "men", "woman": "women", "child": "children"}
    named = [
        f"a{'n' if m == 'adult' else ''} {m}" if n == 1 else f"two {plural.get(m, m + 's')}" for m, n in counts.items()
    ]
    return f"a family of {join(named)}"


def _country(name: str) -> str:
    name = name.replace("&", "and")
    the = (
        name in text_tables().with_the
        or name.startswith("United ")
        or name.endswith(("Islands", "Lands", "Territories"))
    )
    return f"the {name}" if the else name


def _insert_skin(template: str, skins: Sequence[str]) -> str:
    """Replaces `{s}` by the skin tones, and joins two consecutive `with` phrases by `and`."""
    if "{s}" not in template:
        return template + (f", with {skins[0]}" if skins else "")
    if len(set(skins)) <= 1:
        text = template.replace("{s}", f" with {skins[0]}" if skins else "")
        return re.sub(r"( with [\w -]+? (?:skin|complexion)) with ", r"\1 and ", text)
    return template.replace("{s}", "") + f", the left one with {skins[0]} and the right one with {skins[1]}"


def _reworded(glyph: Glyph) -> str:
    """Returns a paraphrase of the prompt, or an empty string."""
    tables = text_tables()
    skins = [tables.other_skin[tone] for tone in glyph.tones]
    name, facing = glyph.name.removesuffix(" facing right"), ", turned to the right" if glyph.facing else ""
    if glyph.couple:
        return _insert_skin(
            tables.couples[glyph.base][1].format(who=glyph.gender.replace("two ", "a pair of "), s="{s}"), skins
        )
    if glyph.flag:
        return f"a rectangular flag that stands for {_country(name)}"
    if name in phrases().other_words:
        return _insert_skin(phrases().other_words[name], skins) + facing
    if name.endswith((" o'clock", "-thirty")):
        hour = tables.hours.index(re.split(r"[- ]", name)[0]) + 1
        return f"a round clock face reading {hour}:{'30' if name.endswith('thirty') else '00'}"
    if name.startswith("keycap "):
        return f"a square key marked {name[7:]}"
    if match := re.fullmatch(r"(deaf )?(man|woman|person)(?![\w']) ?(.*)", name):
        who, rest = match[2], match[3]
        if rest in tables.professions:
            return (
                _insert_skin(f"{with_article(tables.other_people[who])}{{s}} {tables.professions[rest]}", skins)
                + facing
            )
        if glyph.hair:
            rest = f"with {tables.other_hair[glyph.hair]}"
        else:
            rest = tables.activities.get(rest, (rest, rest))[1] or tables.activities[rest][0]
        other = "somebody" if who == "person" else with_article(tables.other_people[who])
        deaf = ", who is deaf" if match[1] else ""
        return _insert_skin(f"{other}{{s}} {rest}{deaf}".replace(" ,", ","), skins).rstrip() + facing
    if name in tables.professions:
        return _insert_skin(f"somebody{{s}} {tables.professions[name]}", skins)
    known = set(re.findall(r"\w+", name.lower()))
    for alias in glyph.aliases:
        words = set(re.findall(r"\w+", alias.lower()))
        same_head = alias.split()[-1] == name.split()[-1]
        if any(re.search(unwanted, alias) for unwanted in tables.unwanted_aliases):
            continue
        if same_head and words - known and re.fullmatch(r"[a-z][a-z -]{3,}", alias):
            return _insert_skin(with_article(alias) + "{s}", skins)
    return _insert_skin(_template(glyph), skins) if skins else ""


def _meanings(glyph: Glyph) -> list[str]:
    """Returns up to four keywords that do not repeat the prompt."""
    known = set(re.findall(r"\w+", glyph.name.lower()))
    stems = {word[:4] for word in known}
    found: list[str] = []
    for word in glyph.keywords:
        if not re.fullmatch(r"[a-z][a-z ]{2,19}", word) or word in text_tables().unwanted_keywords:
            continue
        if word in known or word[:4] in stems or any(word[:4] == other[:4] for other in found):
            continue
        found.append(word)
    return found[:4]
