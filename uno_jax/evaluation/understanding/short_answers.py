"""Short answers in the forms that published scorers compare."""

from __future__ import annotations

import re
from collections.abc import Mapping

_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {"none": "0", **{word: str(number) for number, word in enumerate(_NUMBERS)}}
_ARTICLES = {"a", "an", "the"}
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_FULL_STOP = re.compile(r"\.(?!\d)")
_CONTRACTED = (
    "ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's "
    "isn't it'd it'll ma'am mightn't might've mustn't must've needn't not've o'clock oughtn't shan't should've "
    "shouldn't somebody'll somebody's someone'd someone'll someone's something'd something'll that's there'd there're "
    "there's they'd they'll they're they've 'twas wasn't we've weren't what'll what're what's what've when's where'd "
    "where's where've who'd who'll who's who've why'll why're why's won't would've wouldn't y'all you'd you'll you're "
    "you've couldn't've hadn't've he'd've it'd've mightn't've she'd've shouldn't've somebody'd've someone'd've "
    "something'd've there'd've they'd've we'd've who'd've wouldn't've y'all'll y'all'd've you'd've"
)


def _written_without() -> dict[str, str]:
    """Returns contracted words by their spellings that lack one apostrophe. Words as in VQA's list of them."""
    return {
        word[:at] + word[at + 1 :]: word
        for word in _CONTRACTED.split()
        for at, letter in enumerate(word)
        if letter == "'"
    }


_CONTRACTIONS = _written_without()


def comparable(answer: str) -> str:
    """Returns an answer as VQA's scorer compares it.

    Lower case, without articles and punctuation, with digits for the numbers up to ten, and with apostrophes in
    contracted words.
    """
    text = answer.lower().replace(",", "").replace("?", "").replace("'s", " 's")
    text = text.replace("\n", " ").replace("\t", " ").strip()
    joined = text
    for sign in _PUNCTUATION:
        # A sign beside a space is dropped, one within a word parts it.
        beside = f"{sign} " in text or f" {sign}" in text
        joined = joined.replace(sign, "" if beside else " ")
    words = [_DIGITS.get(word, word) for word in _FULL_STOP.sub("", joined).split()]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def soft_accuracy(answer: str, given: list[str]) -> float:
    """Returns VQA's accuracy of an answer: the mean, over leaving out one person, of min(1, others who agree / 3).

    With one person it is 1 if the answers are the same.
    """
    said, others = comparable(answer), [comparable(each) for each in given]
    if len(others) == 1:
        return float(said == others[0])
    agree = others.count(said)
    return sum(min(1.0, (agree - (other == said)) / 3) for other in others) / len(others)


def first_option(answer: str, options: Mapping[str, str]) -> str:
    """Returns the letter that an answer begins with, or of the first option whose text it has; else the answer.

    As in BAGEL's scripts, which however write C for an empty answer.
    """
    said = answer.strip()
    if len(said) <= 1 or said[0] in options:
        return said[:1]
    return next((letter for letter, text in options.items() if text and text in said), said)
