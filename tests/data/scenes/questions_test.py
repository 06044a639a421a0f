"""Questions about scenes have one right answer."""

import re
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from uno_jax.data.scenes.description import directions_of
from uno_jax.data.scenes.facts import AREAS, OPPOSITE, Kind, Number, Relation, area_of
from uno_jax.data.scenes.generate import SPLITS, make_example
from uno_jax.data.scenes.held_out import PAIRS, held_out_named
from uno_jax.data.scenes.naming import name_of
from uno_jax.data.scenes.questions import list_of, questions_of
from uno_jax.data.scenes.scene import MOST_LARGE
from uno_jax.data.scenes.text import read_facts
from uno_jax.data.scenes.words import AREA_WORDS, DIRECTION_WORDS, NUMBER_WORDS, SHAPE_WORDS

EXAMPLES = st.builds(make_example, st.integers(0, 99), st.sampled_from(SPLITS), st.integers(0, 10**6))
NUMBERS = {"none": 0, "one": 1} | {word: number for number, word in NUMBER_WORDS.items()}


def asked(example, kind):
    return [question for question in questions_of(example) if question.kind == kind]


def named(text, scene):
    """The only thing of a scene with a name, which may lack one attribute that the question asks for."""
    (found,) = {
        thing for thing in scene.things for hidden in ("", "colour", "size", "area")
        if name_of(thing, scene, without=hidden) == text
    }  # fmt: skip
    return found


@given(EXAMPLES)
def test_the_questions_of_an_example_are_always_the_same_and_differ_from_each_other(example):
    questions = questions_of(example)
    assert questions == questions_of(example)
    assert len({question.text for question in questions}) == len(questions)


@given(EXAMPLES)
def test_colour_size_and_place_are_those_of_the_thing_named(example):
    for question in questions_of(example):
        if match := re.fullmatch(r"(?:what colour is|where is) (.+)\?|is (.+) large or small\?", question.text):
            thing = named(match[1] or match[2], example.scene)
            truth = {"colour": thing.colour, "size": thing.size, "place": AREA_WORDS[area_of(thing)][0]}
            assert question.answer == truth[question.kind]


@given(EXAMPLES)
def test_things_are_counted(example):
    for question in asked(example, "count"):
        what = re.fullmatch(r"how many (.+) are there\?", question.text)[1]
        wanted = what.removesuffix(" things").removesuffix("things")
        count = sum(wanted in ("", thing.colour, SHAPE_WORDS[thing.shape][0].many) for thing in example.scene.things)
        assert NUMBERS[question.answer] == count


@given(EXAMPLES)
def test_the_list_says_every_thing_once_from_the_top_left(example):
    said = []
    for phrase in list_of(example.scene).answer.split(", "):
        size, colour, shape, area = re.fullmatch(r"(small |large )?(\w+) (\w+) (.+)", phrase).groups()
        said.append((size and size.strip(), colour, shape, area))
    with_size = len(said) <= MOST_LARGE
    things = [
        (thing.size if with_size else None, thing.colour, thing.shape, area_of(thing)) for thing in example.scene.things
    ]
    assert Counter(said) == Counter(things)
    order = [name for row in AREAS for name in row]
    places = [order.index(area) for *_, area in said]
    assert places == sorted(places)


@given(EXAMPLES)
def test_the_answer_to_a_relation_is_the_other_thing_and_lies_there(example):
    directions = {words[0]: direction for direction, words in DIRECTION_WORDS.items()}
    for question in asked(example, "relation"):
        way, name = re.fullmatch(rf"what is ({'|'.join(directions)}) (.+)\?", question.text).groups()
        thing = named(name, example.scene)
        (other,) = (one for one in example.scene.things if one != thing)
        assert read_facts(question.answer) == (Number(Kind(other.shape, other.colour), 1),)
        assert directions[way] in directions_of(other, thing)


@given(EXAMPLES)
def test_yes_is_true_and_no_is_false(example):
    for question in asked(example, "yes or no"):
        if match := re.fullmatch(r"is there (.+)\?", question.text):
            (fact,) = read_facts(match[1])
            present = any(fact.kind.fits(thing) for thing in example.scene.things)
            assert question.answer == ("yes" if present else "no")


def test_no_question_of_training_names_a_held_out_combination():
    pairs = {(fact.kind.shape, fact.kind.colour) for fact in PAIRS}
    for number in range(400):
        for question in asked(make_example(0, "train", number), "yes or no"):
            if match := re.fullmatch(r"is the (?:small |large )?(\w+)(?: (?:at|in) the .+)? (\w+)\?", question.text):
                assert match.groups() not in pairs
            if match := re.fullmatch(r"is the (\w+) (left of|right of|above|below) the (\w+)\?", question.text):
                assert not held_out_named((Relation(Kind(match[1]), match[2], Kind(match[3])),))


def test_every_kind_of_question_comes_first_about_as_often():
    first = Counter(questions_of(make_example(0, "train", number))[0].kind for number in range(300))
    assert len(first) == 8
    assert min(first.values()) > 10


def test_half_of_the_answers_to_yes_or_no_are_yes():
    answers = [q.answer for number in range(200) for q in asked(make_example(0, "train", number), "yes or no")]
    assert 0.42 < answers.count("yes") / len(answers) < 0.58


def test_opposite_directions_are_opposite():
    assert all(OPPOSITE[OPPOSITE[direction]] == direction for direction in OPPOSITE)
