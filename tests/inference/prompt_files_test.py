"""Prompt files: fields of a line, and errors of invalid lines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers.made_up_plans import latents_of
from tests.helpers.small_loaded import small_generator
from uno_jax.inference.generate import Request
from uno_jax.inference.picture_settings import PictureSettings
from uno_jax.inference.prompt_files import PromptError, check_prompts, prompts_of_arguments, read_prompts

SETTINGS = PictureSettings(timesteps=7)


def jsonl(folder: Path, *lines: object) -> Path:
    file = folder / "prompts.jsonl"
    file.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return file


def save_picture(file: Path) -> Path:
    Image.fromarray(latents_of(1, 2)).save(file)
    return file


def test_a_text_file_has_one_prompt_per_line(tmp_path):
    (tmp_path / "prompts.txt").write_text("a red heart\n\n  Grüße! \n")
    prompts = read_prompts(tmp_path / "prompts.txt", SETTINGS)
    assert [(p.id, p.request) for p in prompts] == [
        ("00000-a-red-heart", Request(("a red heart",), SETTINGS)),
        ("00001-grüße", Request(("Grüße!",), SETTINGS)),
    ]
    assert prompts[1].where == f"{tmp_path}/prompts.txt:3"


def test_a_jsonl_line_has_its_own_pictures_and_settings(tmp_path):
    file = jsonl(
        tmp_path,
        {"prompt": "one", "seed": 3, "size": "8x16", "interval": [0, 1]},
        {"id": "two", "prompt": "make it blue", "images": ["a.png", "b.png"]},
        {"context": [{"image": "a.png"}, "then", {"image": "b.png"}]},
    )
    one, two, three = read_prompts(file, SETTINGS)
    assert one.request == Request(("one",), PictureSettings(3, "8x16", timesteps=7, interval=(0.0, 1.0)))
    assert two.id == "two"
    assert two.request == Request((tmp_path / "a.png", tmp_path / "b.png", "make it blue"), SETTINGS)
    assert three.request.context == (tmp_path / "a.png", "then", tmp_path / "b.png")


def test_a_size_or_aspect_of_a_line_takes_the_place_of_either_default(tmp_path):
    file = jsonl(tmp_path, {"prompt": "one", "size": "8x16"}, {"prompt": "two", "aspect": "2:1"}, {"prompt": "three"})
    for default in (PictureSettings(size="16x16"), PictureSettings(aspect="1:1")):
        settings = [prompt.request.settings for prompt in read_prompts(file, default)]
        assert settings == [PictureSettings(size="8x16"), PictureSettings(aspect="2:1"), default]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (
            {"prompt": "a", "size": "8x16", "aspect": "1:2"},
            "settings: size is 8x16 and aspect is 1:2: give one of them, not both",
        ),
        pytest.param(
            "[" * 100_000, r"not valid JSON \(brackets nested too deeply\); write one JSON object per line", id="nested"
        ),
        ("{", r"not valid JSON \(Expecting property name.* at character 2\); write one JSON object per line"),
        ("[1]", "a JSON list, not an object"),
        ({"images": []}, "prompt is missing: expected a text"),
        ({"prompt": 3}, "prompt is 3: expected a text"),
        ({"prompt": "a", "images": "a.png"}, "images is 'a.png': expected a list of paths"),
        ({"prompt": "a", "context": ["a"]}, "context and prompt: use context alone, or prompt and images"),
        ({"context": [3]}, r"context\[0\] is 3: expected a text or"),
        ({"prompt": "a", "sed": 3}, "settings.sed is not a field of PictureSettings; did you mean seed"),
        ({"prompt": "a", "seed": "3"}, r"settings.seed is '3' \(str\): expected int"),
        ({"prompt": "a", "timesteps": 1}, "settings: timesteps is 1: expected 2 to 10000"),
        ({"prompt": "a", "id": "../a"}, "id is '../a': expected a file name of letters"),
        ({"prompt": "a", "id": "ü" * 101}, "id has 202 bytes: expected at most 200"),
    ],
)
def test_an_invalid_line_is_named(tmp_path, line, problem):
    with pytest.raises(PromptError, match=rf"prompts\.jsonl:2: {problem}"):
        read_prompts(jsonl(tmp_path, {"prompt": "fine"}, line), SETTINGS)


def test_all_invalid_lines_are_named_at_once(tmp_path):
    with pytest.raises(PromptError) as raised:
        read_prompts(jsonl(tmp_path, "{", {"prompt": "a", "id": "a"}, {"prompt": "b", "id": "a"}), SETTINGS)
    lines = str(raised.value).split("\n")
    assert "prompts.jsonl:1: not valid JSON" in lines[0]
    assert "prompts.jsonl:3: id 'a' is also the id of" in lines[1]


def test_a_file_without_prompts_is_an_error(tmp_path):
    with pytest.raises(PromptError, match=r"prompts\.jsonl: no prompts;"):
        read_prompts(jsonl(tmp_path, ""), SETTINGS)
    with pytest.raises(PromptError, match=r"missing\.txt: cannot be read \(No such file"):
        read_prompts(tmp_path / "missing.txt", SETTINGS)
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(PromptError, match=r"latin\.txt: not UTF-8 text \(byte 4\)"):
        read_prompts(tmp_path / "latin.txt", SETTINGS)


def test_the_case_of_the_suffix_does_not_matter(tmp_path):
    file = jsonl(tmp_path, {"prompt": "one"}).rename(tmp_path / "prompts.JSONL")
    assert [prompt.text for prompt in read_prompts(file, SETTINGS)] == ["one"]


@pytest.mark.parametrize("name", ["prompts.json", "prompts.NDJSON"])
def test_other_json_files_are_not_read_as_text(tmp_path, name):
    file = jsonl(tmp_path, {"prompt": "one"}).rename(tmp_path / name)
    with pytest.raises(PromptError, match=rf"{name}: .* name a file with one JSON object per line \.jsonl"):
        read_prompts(file, SETTINGS)


def test_prompts_above_the_context_length_are_named_before_any_work(tmp_path):
    file = jsonl(tmp_path, {"prompt": "a"}, {"prompt": "word " * 20_000}, {"prompt": "a", "negative": "word " * 20_000})
    with pytest.raises(PromptError) as raised:
        list(check_prompts(read_prompts(file, SETTINGS), small_generator()))
    prompt, negative = str(raised.value).split("\n")
    assert "prompts.jsonl:2: the context has" in prompt
    assert "prompts.jsonl:3: the context has" in negative


def test_damaged_pictures_and_unsupported_sizes_are_named_before_any_work(tmp_path):
    save_picture(tmp_path / "fine.png")
    (tmp_path / "damaged.png").write_bytes((tmp_path / "fine.png").read_bytes()[:60])
    file = jsonl(
        tmp_path,
        {"prompt": "a", "images": ["fine.png"]},
        {"prompt": "a", "images": ["damaged.png", "fine.png"]},
        {"prompt": "a", "images": ["missing.png"]},
        {"prompt": "a", "size": "9x9"},
    )
    with pytest.raises(PromptError) as raised:
        list(check_prompts(read_prompts(file, SETTINGS), small_generator()))
    damaged, missing, size = str(raised.value).split("\n")
    assert "prompts.jsonl:2: picture: " in damaged
    assert "damaged.png: " in damaged
    assert "prompts.jsonl:3: " in missing
    assert "missing.png: cannot be read (No such file" in missing
    assert "prompts.jsonl:4: size is 9x9" in size


@pytest.mark.parametrize(("prompt", "negative"), [("caf\udce9", ""), ("fine", "\ud800")])
def test_invalid_unicode_is_named_before_any_work(prompt, negative):
    prompts = prompts_of_arguments([prompt], [], PictureSettings(negative=negative))
    with pytest.raises(PromptError, match="^--prompt 0: .* is not valid Unicode"):
        list(check_prompts(prompts, small_generator()))


def test_prompts_of_a_command_line_have_all_of_its_pictures():
    one, two = prompts_of_arguments(["a", "b"], ["x.png", "y.png"], SETTINGS)
    assert one.request == Request((Path("x.png"), Path("y.png"), "a"), SETTINGS)
    assert two.request == Request((Path("x.png"), Path("y.png"), "b"), SETTINGS)
    assert (one.id, two.where) == ("00000-a", "--prompt 1")
