"""The command `uno_jax.chat`: conversations, and input from a pipe."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from tests.helpers.made_up_plans import latents_of
from tests.helpers.paths import ROOT
from tests.helpers.small_loaded import QUICK, QUICK_SETTINGS, save_small_checkpoint, small_generator
from uno_jax import chat
from uno_jax.inference.conversation import Conversation
from uno_jax.inference.generate import Request
from uno_jax.inference.picture_files import read_settings
from uno_jax.inference.picture_metadata import picture_metadata
from uno_jax.interop.load import load_model
from uno_jax.sampling.text import TextConfig

pytestmark = pytest.mark.usefixtures("quick_compiles")

SOURCE = latents_of(1, 2, seed=3)
TEXT = TextConfig(max_length=7)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return save_small_checkpoint(tmp_path_factory.mktemp("chat") / "checkpoint")


def flags(checkpoint: Path, out: Path) -> list[str]:
    quick = [f"--{name}={value}" for name, value in QUICK.items()]
    return [f"--checkpoint={checkpoint}", f"--out={out}", "--max_length=7", *quick]


def talk(checkpoint: Path, out: Path, *lines: str, options: Sequence[str] = ()) -> list[str]:
    """Returns the printed lines."""
    console = Console(file=io.StringIO(), width=200)
    typed = "".join(f"{line}\n" for line in lines).encode(errors="surrogateescape")
    chat.main([*flags(checkpoint, out), *options], console, io.TextIOWrapper(io.BytesIO(typed), encoding="utf-8"))
    return console.file.getvalue().splitlines()


def last(conversation: Conversation) -> Conversation:
    """Returns the conversation after an answer."""
    *_, written = conversation.answer(TEXT)
    assert written.conversation is not None
    return written.conversation


def test_the_pieces_of_an_answer_add_up_to_it():
    conversation = Conversation(small_generator(), parts=(SOURCE, "thing"))
    *pieces, written = conversation.answer(TEXT)
    assert len(pieces) == 2
    [whole] = small_generator().answer([(SOURCE, "thing")], [""], TEXT)
    assert "".join(piece.text for piece in [*pieces, written]) == whole.text == written.conversation.parts[-1]


def test_a_second_answer_continues_from_the_cache_of_the_first():
    first = last(Conversation(small_generator(), parts=(SOURCE, "thing")))
    second = last(first.with_part("number"))
    assert second.read.tokens[0] > first.read.tokens[0] > 0
    [whole] = small_generator().answer([(SOURCE, "thing", first.parts[-1], "number")], [""], TEXT)
    assert second.parts[-1] == whole.text


def test_a_line_above_the_context_length_is_refused_and_forgotten(checkpoint, tmp_path):
    printed = talk(checkpoint, tmp_path, "thing " * 20_000, "thing")
    [error] = [line for line in printed if line.startswith("error: ")]
    assert "positions, and up to 7 are to be written after it, more than the context length of 2,048" in error
    assert printed[-2] == "> thing"


def test_a_generated_picture_is_part_of_the_conversation():
    drawing, after = Conversation(small_generator(), parts=(SOURCE,)).generate("thing", QUICK_SETTINGS)
    assert drawing.image.size == (16, 8)
    assert after.parts[1:] == ("thing", drawing.image)


def test_lines_from_a_pipe_are_answered_and_commands_executed(checkpoint, tmp_path):
    Image.fromarray(SOURCE).save(tmp_path / "source.png")
    out = tmp_path / "out"
    show = f"/image {tmp_path / 'source.png'}"
    printed = talk(checkpoint, out, show, "/draw thing", "/new", show, "/draw thing", "", "/hop", "/quit", "never")
    assert printed[:2] == [f"> {show}", f"({tmp_path / 'source.png'}: 16x8)"]
    assert printed[3] == f"({out / 'picture-000.png'}: 16x8)"
    assert "(a new conversation)" in printed
    assert any(line.startswith("unknown command /hop") for line in printed)
    assert printed[-1] == "> /quit"
    one, two = (Image.open(out / f"picture-00{n}.png").tobytes() for n in range(2))
    assert one != two


def test_a_picture_can_be_stored_without_metadata(checkpoint, tmp_path):
    talk(checkpoint, tmp_path, "/draw thing", options=["--metadata=none"])
    assert Image.open(tmp_path / "picture-000.png").info == {}


def test_a_generated_picture_has_the_metadata_of_sample(checkpoint, tmp_path):
    Image.fromarray(SOURCE).save(tmp_path / "source.png")
    talk(checkpoint, tmp_path, f"/image {tmp_path / 'source.png'}", "/draw thing")
    settings = read_settings(tmp_path / "picture-000.png")
    expected = picture_metadata(Request((SOURCE, "thing"), QUICK_SETTINGS), small_generator())
    assert settings == expected | {"checkpoint": load_model(checkpoint).name}


def test_a_thought_before_a_picture_is_sampled_like_answers(checkpoint, tmp_path):
    options = ["--temperature=2", "--drawing_prompt=number", "--text_scale=1"]
    printed = talk(checkpoint, tmp_path, "/think", "/draw thing", options=options)
    [thought] = small_generator().answer([("number", "thing")], [""], TextConfig(max_length=7, temperature=2.0))
    assert printed[3:-1] == thought.text.splitlines()
    assert read_settings(tmp_path / "picture-000.png")["thoughts"]["temperature"] == 2.0


def test_a_caption_is_an_answer_without_a_question(checkpoint, tmp_path):
    Image.fromarray(SOURCE).save(tmp_path / "source.png")
    printed = talk(checkpoint, tmp_path, "/caption", f"/image {tmp_path / 'source.png'}", "/caption")
    assert printed[1].startswith("error: /caption needs a non-empty conversation")
    [caption] = small_generator().answer([SOURCE], [""], TEXT)
    assert printed[-1] == caption.text


def test_an_empty_answer_is_shown_as_nothing(checkpoint, tmp_path):
    [first] = small_generator().answer([("thing",)], [""], TextConfig(max_length=2))
    assert talk(checkpoint, tmp_path, "thing", options=[f"--stop={first.text}"])[1:] == ["(nothing)"]


def test_an_error_is_printed_and_the_conversation_continues(checkpoint, tmp_path):
    printed = talk(checkpoint, tmp_path, "/image missing.png", "/image", "/draw", "/think", "/think")
    assert printed[1].startswith("error: /image: missing.png: cannot be read (No such file")
    assert printed[3] == "error: /image needs a file name"
    assert printed[5].startswith("error: /draw needs a text")
    assert printed[7::2] == ["(thinking is on)", "(thinking is off)"]


def test_spaces_and_a_byte_order_mark_are_not_part_of_a_command(checkpoint, tmp_path, monkeypatch):
    Image.fromarray(SOURCE).save(tmp_path / "source picture.png")
    monkeypatch.setenv("HOME", str(tmp_path))
    printed = talk(checkpoint, tmp_path, "\ufeff/image\t~/source picture.png", " /think ")
    assert printed[1] == "(~/source picture.png: 16x8)"
    assert printed[3] == "(thinking is on)"


@pytest.mark.parametrize(
    "typed", ['"{}/my picture.png"', "'{}/my picture.png'", "{}/my\\ picture.png", "{}/my picture.png"]
)
def test_the_name_of_a_picture_may_be_quoted(tmp_path, typed):
    Image.fromarray(SOURCE).save(tmp_path / "my picture.png")
    console = Console(file=io.StringIO(), width=200)
    settings = {"text": TEXT, "settings": QUICK_SETTINGS, "stop": (), "out": tmp_path, "console": console}
    chat.Chat(Conversation(small_generator()), **settings).turn(f"/image {typed.format(tmp_path)}")
    assert console.file.getvalue().endswith(": 16x8)\n")


def test_an_invalid_utf8_line_is_an_error_and_the_conversation_continues(checkpoint, tmp_path):
    printed = talk(checkpoint, tmp_path, "caf\udce9", "/think")
    assert printed[0] == r"> caf\xe9"
    assert printed[1].startswith("error: byte 4 of the line is not valid UTF-8")
    assert printed[2:] == ["> /think", "(thinking is on)"]


def test_invalid_options_are_reported_in_a_message(checkpoint, tmp_path):
    with pytest.raises(SystemExit) as exit:
        chat.main([*flags(checkpoint, tmp_path), "--top_p=0"])
    assert "top_p is 0" in str(exit.value.code)
    with pytest.raises(SystemExit) as exit:
        chat.main([*flags(checkpoint, tmp_path), "--stop=thing number"])
    assert "stop 'thing number' is not one token" in str(exit.value.code)
    with pytest.raises(SystemExit) as exit:
        chat.main([*flags(checkpoint, tmp_path), "--image=missing.png"])
    assert "--image: missing.png: cannot be read" in str(exit.value.code)


@pytest.mark.slow
def test_the_command_reads_standard_input(checkpoint, tmp_path):
    ran = subprocess.run(
        [sys.executable, "-m", "uno_jax.chat", *flags(checkpoint, tmp_path)],
        input="thing\n",
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    [answer] = small_generator().answer([("thing",)], [""], TEXT)
    assert ran.stdout.split("\n", 1) == ["> thing", answer.text + "\n"]
