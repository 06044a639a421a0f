"""What a longer answer states: an option, a number or a phrase, by the rules of MMMU's scorer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

_FINAL = re.compile(r"(?:final answer|answer)\W*:\**\s*(.+)", re.IGNORECASE)
_THOUGHT = re.compile(r".*</think>", re.DOTALL)
_EDGES = ",.!?;:'"
_FEWEST_WORDS = 6  # of an answer that may quote the text of an option instead of its letter
_INDICATORS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
_NUMBERS = re.compile(
    r"-?\b\d{1,3}(?:,\d{3})+\b|-?\d+(?:\.\d+)?[eE][+-]?\d+|-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])"
)


def final_answer(text: str) -> str:
    """Returns what follows the last "Final answer:" or "Answer:"; without one, all that follows a thought."""
    rest = _THOUGHT.sub("", text).strip()
    found = _FINAL.findall(rest)
    return str(found[-1]).strip().strip("*").strip() if found else rest


def chosen_option(answer: str, options: Mapping[str, str]) -> str:
    """Returns the letter that an answer chooses: the last one in brackets, else the last one that stands alone, else
    the last option whose text a longer answer quotes; else the answer itself.

    MMMU's scorer draws a random letter in the last case.
    """
    text = f" {answer.strip(_EDGES)} "
    for form in ("({})", " {} "):
        places = {letter: text.rfind(form.format(letter)) for letter in options}
        if max(places.values(), default=-1) >= 0:
            return max(places, key=lambda letter: places[letter])
    if len(text.split()) >= _FEWEST_WORDS:
        places = {letter: text.lower().rfind(option.lower()) for letter, option in options.items() if option}
        if max(places.values(), default=-1) >= 0:
            return max(places, key=lambda letter: places[letter])
    return answer.strip().rstrip(".):") if answer.strip().rstrip(".):") in options else answer.strip()


def is_right(answer: str, right: Sequence[str]) -> bool:
    """Whether a short answer states a right one: the same number up to two decimals, or a text that has it."""
    wanted = [form for each in right for form in _forms(each)]
    for said in _stated(answer):
        if any(form == said if isinstance(form, float) or isinstance(said, float) else form in said for form in wanted):
            return True
    return False


def _stated(answer: str) -> Iterator[str | float]:
    """Yields the statements of an answer, and their numbers, in comparable forms."""
    sentences = re.split(r"\.\s(?=[a-z])|\n", answer.strip().strip(".").lower())
    statements = []
    for number, sentence in enumerate(sentences):
        signs = (*_INDICATORS, *(["="] if number == len(sentences) - 1 else []))
        after = [sentence.split(sign)[-1].strip() for sign in signs if sign in sentence]
        if after and (shortest := min(after, key=len)) not in _EDGES:
            statements.append(shortest)
    for statement in statements or [answer.strip().strip(".").lower()]:
        yield from _forms(statement)
        for number in _NUMBERS.findall(statement):
            yield from _forms(number)


def _forms(text: str) -> list[str | float]:
    """Returns a number rounded to two decimals, or a text in lower case; a single letter only beside a space."""
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        low = text.lower()
        return [f" {low}", f"{low} "] if len(low) == 1 else [low]
