"""Prompts and captions of scenes, and the reader of such texts.

A text is a body in a frame, such as `there is | a red star and a blue circle | on a dark ground`. `_BODIES` lists the
forms of a body, each with its writer and its reader. A prompt is a body alone, in the first words of each table.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from uno_jax.data.scenes.description import Description, Group, describe, directions_of, facts_of, is_true, turned
from uno_jax.data.scenes.draws import one_of
from uno_jax.data.scenes.facts import OPPOSITE, Fact, Kind, OnGround
from uno_jax.data.scenes.scene import Scene
from uno_jax.data.scenes.words import (
    AREA_WORDS,
    BACKGROUND,
    BESIDE_WORDS,
    COLOUR_WORDS,
    DIRECTION_WORDS,
    GROUND_KIND_WORDS,
    GROUND_WORDS,
    NUMBER_WORDS,
    SHAPE_WORDS,
    SIZE_WORDS,
    article,
    join,
)

T = TypeVar("T")

MOST_WORDS = 30
"""Length of the longest caption, in words and punctuation marks."""


def write_prompt(description: Description, draws: np.random.Generator) -> str:
    """Writes the short text of a prompt: the groups, or the relation of two."""
    words = _Words(None)
    if description.direction is None:
        return _write_list(description, words)
    return _write_relation(description, words, one_of(DIRECTION_WORDS[description.direction], draws))


def write_captions(
    scene: Scene, draws: np.random.Generator, prompt: str = "", asked: Description | None = None
) -> tuple[str, ...]:
    """Writes three to five different captions of a scene, each naming all of its things, in various words.

    Args:
      scene: the scene.
      draws: random numbers.
      prompt: a text that no caption equals.
      asked: what the prompt says. Each caption also says its colours, and its relation or the areas of all things.
    """
    number = int(draws.integers(3, 6))
    captions: dict[str, None] = {}
    while len(captions) < number:
        text = write_caption(_draw_description(scene, draws, asked), draws)
        if text != prompt and len(re.findall(r"\w+|[,:;]", text)) <= MOST_WORDS:
            captions[text] = None
    return tuple(captions)


def write_caption(description: Description, draws: np.random.Generator) -> str:
    """Writes a description in a form that can say it."""
    words = _Words(draws)
    body = one_of([body for body in _BODIES if body.says(description)], draws)
    text = body.write(description, words)
    if body.framed:
        verb = "is" if description.groups[0].count == 1 else "are"
        text = words(_FRAMES).format(body=text, verb=verb)
    if description.ground is None:
        return text
    name, kind = words(GROUND_WORDS[description.ground.name]), ""
    if description.ground.kind is not None:
        kind = words(GROUND_KIND_WORDS[description.ground.kind])
    frame = words(_GROUND_FRAMES if body.framed else _GROUND_FRAMES[1:])
    phrase, adjectives = " ".join(filter(None, (kind, name))), " and ".join(filter(None, (kind, name)))
    return frame.format(text=text, phrase=phrase, adjectives=adjectives, background=words(BACKGROUND))


def read_facts(text: str) -> tuple[Fact, ...] | None:
    """Returns the facts that a prompt or a caption states, or None if the text is neither."""
    description = read(text)
    return None if description is None else facts_of(description)


def read(text: str) -> Description | None:
    """Returns what a prompt or a caption says, or None if the text is neither."""
    for ground, framed in _without_ground(text):
        for verb, bare in _without_frame(framed):
            for body in _BODIES:
                description = body.read(bare)
                if description is None or not description.consistent:
                    continue
                if verb in (None, "is" if description.groups[0].count == 1 else "are"):
                    return replace(description, ground=ground)
    return None


def caption_is_right(text: str, scene: Scene) -> bool:
    """Whether a text is a caption or a prompt, names every thing of the scene, and states nothing false."""
    description = read(text)
    return description is not None and is_true(description, scene)


def _draw_description(scene: Scene, draws: np.random.Generator, asked: Description | None) -> Description:
    colour, size, area, ground, ground_kind, relation, turn = (
        draws.random(7) < (0.8, 0.5, 0.5, 0.5, 0.3, 0.5, 0.5)
    ).tolist()
    colour |= asked is not None and any(group.kind.colour for group in asked.groups)
    area &= len(scene.things) <= 3
    description = describe(scene, colour=colour, size=size, area=area, ground=ground, ground_kind=ground_kind)
    if len(scene.things) != 2 or area:
        return description
    if asked is not None and asked.direction is not None:
        related = replace(description, direction=asked.direction)
    elif relation and (directions := directions_of(*scene.things)):
        related = replace(description, direction=one_of(directions, draws))
    else:
        return description
    if not related.consistent:
        return description
    return turned(related) if turn else related


class _Words:
    """Chooses among words at random, within a text always the same ones; without random numbers the first."""

    def __init__(self, draws: np.random.Generator | None):
        self._draws = draws
        self._chosen: dict[int, int] = {}

    def __call__(self, options: Sequence[T]) -> T:
        if self._draws is None or len(options) == 1:
            return options[0]
        if id(options) not in self._chosen:
            self._chosen[id(options)] = int(self._draws.integers(len(options)))
        return options[self._chosen[id(options)]]


_FRAMES = ("{body}", "{body}", "there {verb} {body}", "a picture of {body}", "the picture shows {body}")
_GROUND_FRAMES = (
    "{text} on a {phrase} {background}",  # only after a body that ends with a thing
    "on a {phrase} {background}, {text}",
    "{text}; the {background} is {adjectives}",
)


# Noun phrases: `two small red stars at the top left`


def _write_group(group: Group, words: _Words) -> str:
    phrase = [words(SIZE_WORDS[group.kind.size])] if group.kind.size else []
    phrase += [words(COLOUR_WORDS[group.kind.colour])] if group.kind.colour else []
    phrase += [_noun(group, words)]
    number = article(phrase[0]) if group.count == 1 else NUMBER_WORDS[group.count]
    return " ".join((number, *phrase, *([words(AREA_WORDS[group.area])] if group.area else [])))


def _noun(group: Group, words: _Words) -> str:
    assert group.kind.shape is not None, f"a text names the shape of every thing, got {group}"
    noun = words(SHAPE_WORDS[group.kind.shape])
    return noun.one if group.count == 1 else noun.many


def _read_group(text: str) -> Group | None:
    match = _GROUP.fullmatch(text)
    if match is None:
        return None
    shape, one = _NOUNS[match["noun"]]
    count = _COUNTS[match["count"]]
    first = next(word for word in match.group("size", "colour", "noun") if word)
    if one != (count == 1) or (one and match["count"] != article(first)):
        return None
    kind = Kind(shape, _COLOURS.get(match["colour"]), _SIZES.get(match["size"]))
    return Group(kind, count, _AREAS.get(match["area"]))


def _read_join(text: str) -> Sequence[str]:
    """Returns the parts of a text that `join` joined."""
    parts = re.split(", | and ", text)
    return parts if join(parts) == text else ()


def _described(groups: Iterable[Group | None]) -> Description | None:
    """Returns a description of groups, or None if one of them could not be read or there is none."""
    read = list(groups)
    given = tuple(group for group in read if group is not None)
    return Description(given) if given and len(given) == len(read) else None


# A list: `a red star at the top left and a blue circle at the bottom`


def _write_list(description: Description, words: _Words) -> str:
    return join([_write_group(group, words) for group in description.groups])


def _read_list(text: str) -> Description | None:
    return _described(map(_read_group, _read_join(text)))


# A relation: `a red star to the left of a blue circle`, `a blue circle with a red star to its left`


def _write_relation(description: Description, words: _Words, direction: str | None = None) -> str:
    assert description.direction is not None, f"not a relation: {description}"
    first, second = (_write_group(group, words) for group in description.groups)
    return f"{first} {direction or words(DIRECTION_WORDS[description.direction])} {second}"


def _read_relation(text: str) -> Description | None:
    match = _RELATION.fullmatch(text)
    if match is None:
        return None
    description = _described(map(_read_group, match.group("first", "second")))
    return description and replace(description, direction=_DIRECTIONS[match["direction"]])


def _write_beside(description: Description, words: _Words) -> str:
    assert description.direction is not None, f"not a relation: {description}"
    first, second = (_write_group(group, words) for group in description.groups)
    return f"{first} with {second} {BESIDE_WORDS[OPPOSITE[description.direction]]}"


def _read_beside(text: str) -> Description | None:
    match = _BESIDE.fullmatch(text)
    if match is None:
        return None
    description = _described(map(_read_group, match.group("first", "second")))
    return description and replace(description, direction=OPPOSITE[_BESIDES[match["direction"]]])


# A number, then its colours: `three stars, two red and one blue`


def _write_split(description: Description, words: _Words) -> str:
    whole = Group(Kind(description.groups[0].kind.shape), description.total)
    parts = [
        f"{'one' if group.count == 1 else NUMBER_WORDS[group.count]} {words(COLOUR_WORDS[group.kind.colour or ''])}"
        for group in description.groups
    ]
    return f"{_write_group(whole, words)}, {join(parts)}"


def _read_split(text: str) -> Description | None:
    head, _, tail = text.partition(", ")
    whole, matches = _read_group(head), [_PART.fullmatch(part) for part in _read_join(tail)]
    if whole is None or whole != Group(Kind(whole.kind.shape), whole.count) or not all(matches):
        return None
    parts = {_COLOURS[match["colour"]]: _PARTS[match["count"]] for match in matches if match}
    if len(parts) != len(matches) or sum(parts.values()) != whole.count:
        return None
    return _described(Group(Kind(whole.kind.shape, colour), count) for colour, count in parts.items())


# Shapes, then what they are like: `a star and a circle: the star is red; the circle is blue and at the top`


def _write_sentences(description: Description, words: _Words) -> str:
    bare = Description(tuple(Group(Kind(group.kind.shape), group.count) for group in description.groups))
    sentences = []
    for group in description.groups:
        given = ((group.kind.size, SIZE_WORDS), (group.kind.colour, COLOUR_WORDS), (group.area, AREA_WORDS))
        adjectives = join([words(table[concept]) for concept, table in given if concept])
        sentences.append(f"the {_noun(group, words)} {'is' if group.count == 1 else 'are'} {adjectives}")
    return f"{_write_list(bare, words)}: {'; '.join(sentences)}"


def _read_sentences(text: str) -> Description | None:
    head, _, tail = text.partition(": ")
    bare, matches = _read_list(head), [_SENTENCE.fullmatch(sentence) for sentence in tail.split("; ")]
    if bare is None or len(bare.groups) != len(matches):
        return None
    return _described(_read_sentence(group, match) for group, match in zip(bare.groups, matches, strict=True))


def _read_sentence(group: Group, match: re.Match[str] | None) -> Group | None:
    bare = Group(Kind(group.kind.shape), group.count)
    if match is None or group != bare or _NOUNS[match["noun"]] != (group.kind.shape, group.count == 1):
        return None
    if match["verb"] != ("is" if group.count == 1 else "are"):
        return None
    adjectives = _read_join(match["adjectives"])
    size, colour, area = ([table[word] for word in adjectives if word in table] for table in (_SIZES, _COLOURS, _AREAS))
    if max(map(len, (size, colour, area))) > 1 or len(size + colour + area) != len(adjectives) or not adjectives:
        return None
    kind = Kind(group.kind.shape, next(iter(colour), None), next(iter(size), None))
    return Group(kind, group.count, next(iter(area), None))


# Areas, then what is there: `at the top left is a red star and at the bottom are two circles`


def _write_areas(description: Description, words: _Words) -> str:
    parts = []
    for group in description.groups:
        verb = "is" if group.count == 1 else "are"
        parts.append(f"{words(AREA_WORDS[group.area or ''])} {verb} {_write_group(replace(group, area=None), words)}")
    return join(parts)


def _read_areas(text: str) -> Description | None:
    return _described(map(_read_area, _read_join(text)))


def _read_area(text: str) -> Group | None:
    match = _AREA.fullmatch(text)
    group = match and _read_group(match["group"])
    if match is None or group is None or group.area or match["verb"] != ("is" if group.count == 1 else "are"):
        return None
    return replace(group, area=_AREAS[match["area"]])


@dataclass(frozen=True)
class _Body:
    """A form of a text without its frame."""

    says: Callable[[Description], bool]
    """Whether the form can say a description, its ground left out."""
    write: Callable[[Description, _Words], str]
    read: Callable[[str], Description | None]
    """Returns what a text in this form says, and None for any other text."""
    framed: bool = True
    """Whether it ends with a thing, and may stand behind `there is`."""


def _is_split(description: Description) -> bool:
    shapes = {group.kind.shape for group in description.groups}
    plain = all(group.kind.colour and not group.kind.size and not group.area for group in description.groups)
    return description.direction is None and plain and len(shapes) == 1 and len(description.groups) > 1


def _is_sentences(description: Description) -> bool:
    shapes = {group.kind.shape for group in description.groups}
    said = all(group.kind.colour or group.kind.size or group.area for group in description.groups)
    return description.direction is None and said and len(shapes) == len(description.groups)


def _is_areas(description: Description) -> bool:
    return description.direction is None and all(group.area for group in description.groups)


_BODIES = (
    _Body(lambda description: description.direction is None, _write_list, _read_list),
    _Body(lambda description: description.direction is not None, _write_relation, _read_relation),
    _Body(lambda description: description.direction is not None, _write_beside, _read_beside),
    _Body(_is_split, _write_split, _read_split, framed=False),
    _Body(_is_sentences, _write_sentences, _read_sentences, framed=False),
    _Body(_is_areas, _write_areas, _read_areas, framed=False),
)


# The reader's tables: from words to what they mean


def _inverse(table: Mapping[T, Sequence[str]]) -> dict[str | None, T]:
    return {word: concept for concept, words in table.items() for word in words}


def _any_of(words: Iterable[str | None]) -> str:
    """Returns a pattern of any of the words, longer ones first."""
    return "|".join(sorted(filter(None, words), key=len, reverse=True))


_NOUNS = {word: (shape, word == noun.one) for shape, nouns in SHAPE_WORDS.items() for noun in nouns for word in noun}
_COLOURS, _SIZES, _AREAS = _inverse(COLOUR_WORDS), _inverse(SIZE_WORDS), _inverse(AREA_WORDS)
_DIRECTIONS = _inverse(DIRECTION_WORDS)
_BESIDES = {word: direction for direction, word in BESIDE_WORDS.items()}
_COUNTS = {"a": 1, "an": 1, **{word: count for count, word in NUMBER_WORDS.items()}}
_PARTS = {"one": 1, **{word: count for count, word in NUMBER_WORDS.items()}}

_GROUP = re.compile(
    rf"(?P<count>{_any_of(_COUNTS)})(?: (?P<size>{_any_of(_SIZES)}))?(?: (?P<colour>{_any_of(_COLOURS)}))?"
    rf" (?P<noun>{_any_of(_NOUNS)})(?: (?P<area>{_any_of(_AREAS)}))?"
)
_RELATION = re.compile(rf"(?P<first>.+?) (?P<direction>{_any_of(_DIRECTIONS)}) (?P<second>.+)")
_BESIDE = re.compile(rf"(?P<first>.+?) with (?P<second>.+) (?P<direction>{_any_of(_BESIDES)})")
_PART = re.compile(rf"(?P<count>{_any_of(_PARTS)}) (?P<colour>{_any_of(_COLOURS)})")
_SENTENCE = re.compile(rf"the (?P<noun>{_any_of(_NOUNS)}) (?P<verb>is|are) (?P<adjectives>.+)")
_AREA = re.compile(rf"(?P<area>{_any_of(_AREAS)}) (?P<verb>is|are) (?P<group>.+)")

_GROUND_NAMES, _GROUND_KINDS = _inverse(GROUND_WORDS), _inverse(GROUND_KIND_WORDS)
_KIND, _NAME = f"(?P<kind>{_any_of(_GROUND_KINDS)})", f"(?P<name>{_any_of(_GROUND_NAMES)})"
_SLOTS = {
    "text": "(?P<text>.+)",
    "body": "(?P<body>.+)",
    "verb": "(?P<verb>is|are)",
    "background": f"(?:{_any_of(BACKGROUND)})",
    "phrase": f"(?:{_KIND} )?{_NAME}",
    "adjectives": f"(?:{_KIND} and )?{_NAME}",
}
_FRAME_PATTERNS = tuple(re.compile(frame.format(**_SLOTS)) for frame in dict.fromkeys(_FRAMES))
_GROUND_PATTERNS = tuple(re.compile(frame.format(**_SLOTS)) for frame in _GROUND_FRAMES)


def _without_ground(text: str) -> Iterator[tuple[OnGround | None, str]]:
    """Yields the ready ways to take the ground off a text, with what is left."""
    yield None, text
    for pattern in _GROUND_PATTERNS:
        if match := pattern.fullmatch(text):
            yield OnGround(_GROUND_NAMES[match["name"]], _GROUND_KINDS.get(match["kind"])), match["text"]


def _without_frame(text: str) -> Iterator[tuple[str | None, str]]:
    """Yields the ways to take a frame off a text: its verb, if it has one, and what is left."""
    for pattern in _FRAME_PATTERNS:
        if match := pattern.fullmatch(text):
            yield match.groupdict().get("verb"), match["body"]
