"""Questions that a dataset answers for its records."""

from __future__ import annotations

from tests.helpers.made_up_records import make_record
from uno_jax.data.scenes.generate import make_example
from uno_jax.data.scenes.scene import Ground, Place, Scene, Thing
from uno_jax.inside.questions import FEWEST, MOST, facts_of, questions_of, scene_facts, words_of


def records(*prompts: str):
    return [make_record(i, prompt=prompt) for i, prompt in enumerate(prompts)]


def test_words_are_those_of_the_prompt():
    assert words_of(make_record(prompt="A red-hot Heart, 123 of ❤")) == {"word": {"red", "hot", "heart"}}


def test_words_of_an_edit_are_those_of_its_captions():
    edit = make_record(0, "editing", prompt="make it blue", captions=("a blue heart", "heart"))
    assert words_of(edit) == {"word": {"blue", "heart"}}


def test_answers_are_the_words_that_vary_among_the_records():
    [question] = questions_of(records(*["red heart"] * FEWEST, *["blue heart"] * FEWEST, "green heart"))
    assert question.name == "word"
    assert set(question.answers) == {"red", "blue"}
    assert question.labels.sum(axis=0).tolist() == [FEWEST, FEWEST]
    assert not question.exclusive


def test_one_answer_per_record_is_exclusive():
    [question] = questions_of(records(*["red"] * FEWEST, *["blue"] * FEWEST, "green"))
    assert question.exclusive


def test_there_are_only_the_most_frequent_answers():
    words = [f"word{chr(97 + i)}{chr(97 + j)}" for i in range(6) for j in range(6)]
    [question] = questions_of(records(*words * FEWEST, *["wordaa"] * 2))
    assert len(question.answers) == MOST
    assert question.answers[0] == "wordaa"


def test_records_that_do_not_differ_have_no_question():
    assert questions_of(records(*["red heart"] * 20)) == []


def test_a_scene_is_asked_for_its_things():
    things = (Thing("star", "red", "small", Place(0.2, 0.2)), Thing("star", "blue", "large", Place(0.5, 0.8)))
    assert scene_facts(Scene(things, Ground("white", "plain"))) == {
        "shape": {"star"},
        "colour": {"red", "blue"},
        "binding": {"red star", "blue star"},
        "position": {"top left", "bottom"},
        "count": {"2"},
    }


def test_scenes_are_known_by_the_ids_of_their_records():
    example = make_example(0, "test", 3)
    record = make_record(id=example.id, prompt=example.prompt)
    assert facts_of(record) == scene_facts(example.scene)
    assert facts_of(make_record(id="other/0/test/3", prompt="red star")) == {"word": {"red", "star"}}
    assert facts_of(make_record(0, "editing", id=example.id, captions=("red star",))) == {"word": {"red", "star"}}


def test_of_scenes_only_the_number_of_things_is_exclusive():
    examples = [make_example(0, "test", number) for number in range(200)]
    scenes = [make_record(id=example.id, prompt=example.prompt) for example in examples]
    exclusive = {question.name: question.exclusive for question in questions_of(scenes)}
    assert exclusive == {"shape": False, "colour": False, "binding": False, "position": False, "count": True}
