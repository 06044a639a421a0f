"""Editing pairs of OpenMoji drawings that differ in one attribute, with an instruction that names the change."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

from uno_jax.data.openmoji.glyphs import Glyph
from uno_jax.data.openmoji.tables import Series, edit_tables, glyph_tables, text_tables
from uno_jax.data.openmoji.text import choice, prompt_of, with_article

# Maximum number of pairs of a kind per group of drawings. The selection depends only on the ids.
MAX_PAIRS = {"tone": 24, "tones": 40, "expression": 6}


@dataclass(frozen=True)
class Edit:
    """A source drawing, a target drawing, and the editing instruction."""

    kind: str
    source: Glyph
    target: Glyph
    instruction: str

    @property
    def id(self) -> str:
        return f"openmoji/edit/{self.kind}/{self.source.stem}/{self.target.stem}"


def all_edits(glyphs: Sequence[Glyph]) -> list[Edit]:
    """Returns all editing pairs of the given drawings, at most MAX_PAIRS per group, sorted by id."""
    edits = [*_tones(glyphs), *_who(glyphs), *_hair(glyphs), *_facing(glyphs), *_series(glyphs), *_states(glyphs)]
    edits += _expressions(glyphs)
    unique = {(edit.source.stem, edit.target.stem): edit for edit in edits}
    return sorted(unique.values(), key=lambda edit: edit.id)


def _tones(glyphs: Iterable[Glyph]) -> Iterator[Edit]:
    groups = _grouped(glyphs, lambda g: None if g.flag else (g.base, g.name, g.gender, g.hair, g.facing))
    for group in groups:
        one = [g for g in group if len(set(g.tones)) <= 1]
        yield from _pairs("tone", one, lambda s, t: s.tones != t.tones, _tone_instructions)
        two = [g for g in group if len(g.tones) == 2]
        yield from _pairs("tones", two, _one_tone_differs, _two_tone_instructions)


def _one_tone_differs(source: Glyph, target: Glyph) -> bool:
    return sum(a != b for a, b in zip(source.tones, target.tones, strict=True)) == 1


def _tone_instructions(source: Glyph, target: Glyph) -> list[str]:
    skin = target.tones[0] if target.tones else "yellow"
    if source.couple:
        who = "both hands" if source.base == "handshake" else "both people"
        return [f"make the skin of {who} {skin}", f"give {who} {skin} skin", f"change both skin tones to {skin}"]
    if source.gender:
        who = f"the {source.gender.removesuffix(' with a crown')}" if "Claus" not in source.gender else source.gender
        return [
            f"make the skin {skin}",
            f"change the skin tone to {skin}",
            f"give {who} {skin} skin",
            f"let {who} have {skin} skin instead",
        ]
    return [f"make the skin {skin}", f"change the skin tone to {skin}", f"turn the skin colour into {skin}"]


def _two_tone_instructions(source: Glyph, target: Glyph) -> list[str]:
    left = source.tones[0] != target.tones[0]
    side, skin = ("left", target.tones[0]) if left else ("right", target.tones[1])
    who = "hand" if source.base == "handshake" else "person"
    return [
        f"make the skin of the {who} on the {side} {skin}",
        f"give the {who} on the {side} {skin} skin",
        f"change the skin tone of the {side} {who} to {skin}",
    ]


def _who(glyphs: Iterable[Glyph]) -> Iterator[Edit]:
    people = [g for g in glyphs if g.gender and g.gender not in edit_tables().no_gender]
    for group in _grouped(people, lambda g: (g.base, g.hair, g.facing)):
        yield from _pairs("who", group, lambda s, t: s.tones == t.tones and s.gender != t.gender, _who_instructions)


def _who_instructions(source: Glyph, target: Glyph) -> list[str]:
    if source.couple:
        old, new = source.gender, target.gender
        return [f"show {new} instead of {old}", f"turn them into {new}", f"replace the couple by {new}"]
    old, new = (name if "Claus" in name else f"the {name}" for name in (source.gender, target.gender))
    target_noun = target.gender if "Claus" in target.gender else with_article(target.gender)
    return [
        f"turn {old} into {target_noun}",
        f"replace {old} with {target_noun}",
        f"show {target_noun} instead of {old}",
        f"make this {target_noun}",
    ]


def _hair(glyphs: Iterable[Glyph]) -> Iterator[Edit]:
    people = [g for g in glyphs if g.base == "1F9D1"]
    for group in _grouped(people, lambda g: (g.gender, g.tones)):
        yield from _pairs("hair", group, _hair_differs, _hair_instructions)


def _hair_differs(source: Glyph, target: Glyph) -> bool:
    # People with a beard have the usual hair colour, so they differ only from plain people by the beard alone.
    beard = "beard" in (source.hair, target.hair)
    return source.hair != target.hair and (not beard or "" in (source.hair, target.hair))


def _hair_instructions(source: Glyph, target: Glyph) -> list[str]:
    who = f"the {target.gender}"
    if target.hair == "bald":
        return [f"make {who} bald", "remove all the hair", f"shave the head of {who}"]
    if target.hair == "beard":
        return [f"give {who} a beard", "add a beard", f"let {who} grow a beard"]
    if target.hair:
        words = text_tables().hair[target.hair]
        verb = "dye the hair" if source.hair in ("", "red", "white", "blond") and target.hair != "curly" else ""
        change = f"add {words}" if source.hair == "bald" else f"replace the hair with {words}"
        return [f"give {who} {words}", change, f"{verb} {target.hair}" if verb else f"let {who} have {words}"]
    return {
        "bald": [f"let the hair of {who} grow back", f"give {who} straight hair of the usual colour"],
        "beard": ["remove the beard", f"shave off the beard of {who}"],
        "curly": ["straighten the curls", f"give {who} straight hair of the usual colour"],
    }.get(source.hair, ["change the hair back to its usual colour", f"give {who} hair of the usual colour"])


def _facing(glyphs: Iterable[Glyph]) -> Iterator[Edit]:
    people = [g for g in glyphs if g.gender]
    for group in _grouped(people, lambda g: (g.base, g.gender, g.hair, g.tones, g.couple)):
        yield from _pairs("facing", group, lambda s, t: s.facing != t.facing, _facing_instructions)


def _facing_instructions(source: Glyph, target: Glyph) -> list[str]:
    side, who = target.facing or "left", f"the {target.gender}"
    return [f"make {who} face {side}", f"turn {who} around to face {side}", f"let {who} look to the {side}"]


def _series(glyphs: Iterable[Glyph]) -> Iterator[Edit]:
    by_stem = _by_stem(glyphs)
    for series in edit_tables().series:
        suffixes = ("", *(f"-{tone}" for tone in glyph_tables().tones)) if series.toned else ("",)
        for suffix in suffixes:
            values = {
                by_stem[stem + suffix]: value for stem, value in series.values.items() if stem + suffix in by_stem
            }
            yield from _pairs(series.kind, list(values), lambda s, t: True, _series_texts(series, values))


def _series_texts(series: Series, values: Mapping[Glyph, str]) -> Callable[[Glyph, Glyph], list[str]]:
    templates = edit_tables().instructions[series.instructions]

    def texts(source: Glyph, target: Glyph) -> list[str]:
        return [template.format(thing=series.thing, value=values[target]) for template in templates]

    return texts


def _states(glyphs: Iterable[Glyph]) -> Iterator[Edit]:
    by_stem = _by_stem(glyphs)
    for one, other, there, back in edit_tables().states:
        if one in by_stem and other in by_stem:
            yield Edit("state", by_stem[one], by_stem[other], there)
            yield Edit("state", by_stem[other], by_stem[one], back)


def _expressions(glyphs: Iterable[Glyph]) -> Iterator[Edit]:
    by_stem = _by_stem(glyphs)
    for stems, thing in ((edit_tables().faces, "face"), (edit_tables().cats, "cat")):
        faces = [by_stem[stem] for stem in stems if stem in by_stem]
        for source in faces:
            yield from _pairs("expression", [source, *faces], _starts_from(source), _expression_texts(thing))


def _starts_from(start: Glyph) -> Callable[[Glyph, Glyph], bool]:
    def allowed(source: Glyph, target: Glyph) -> bool:
        return source is start

    return allowed


def _expression_texts(thing: str) -> Callable[[Glyph, Glyph], list[str]]:
    def texts(source: Glyph, target: Glyph) -> list[str]:
        new = prompt_of(target)
        return [f"turn the {thing} into {new}", f"change the expression to {new}", f"show {new} instead"]

    return texts


def _pairs(
    kind: str,
    glyphs: Sequence[Glyph],
    allowed: Callable[[Glyph, Glyph], bool],
    instructions: Callable[[Glyph, Glyph], list[str]],
) -> list[Edit]:
    """Returns the allowed ordered pairs of a group, at most MAX_PAIRS[kind], each with one instruction."""
    edits = []
    for source, target in permutations(dict.fromkeys(glyphs), 2):
        if allowed(source, target):
            texts = instructions(source, target)
            text = texts[choice(f"{kind}/{source.stem}/{target.stem}", len(texts))]
            edits.append(Edit(kind, source, target, text))
    edits.sort(key=lambda edit: choice(edit.id, 1 << 32))
    return edits[: MAX_PAIRS.get(kind)]


def _grouped(glyphs: Iterable[Glyph], key: Callable[[Glyph], tuple[Any, ...] | None]) -> list[list[Glyph]]:
    groups = defaultdict(list)
    for glyph in glyphs:
        groups[key(glyph)].append(glyph)
    return [group for name, group in groups.items() if name is not None]


def _by_stem(glyphs: Iterable[Glyph]) -> dict[str, Glyph]:
    return {glyph.stem.replace("-FE0F", "") if glyph.stem.endswith("-FE0F") else glyph.stem: glyph for glyph in glyphs}
