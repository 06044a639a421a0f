"""Chats with a model about text and pictures in a terminal: `python -m uno_jax.chat --checkpoint=DIR`.

The model answers each line. A line that begins with / is a command:

    /image FILE   adds a picture to the conversation
    /caption      describes the last picture, without a question
    /draw TEXT    generates a picture from the conversation and TEXT
    /think        turns reasoning before answers and pictures on or off
    /new          starts a new conversation
    /help         shows this list
    /quit         quits, like the end of the input

Lines may also come from a pipe, and are then printed before their answers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from absl import flags
from rich.console import Console

from uno_jax.inference.contexts import read_picture
from uno_jax.inference.conversation import Conversation
from uno_jax.inference.options import (
    define_metadata,
    define_model,
    define_pictures,
    define_texts,
    load_from_flags,
    picture_settings,
    text_config,
)
from uno_jax.inference.picture_files import write_picture
from uno_jax.inference.picture_metadata import picture_metadata
from uno_jax.inference.picture_settings import PictureSettings
from uno_jax.process.errors import UserError, exit_with_message, user_message
from uno_jax.process.files import check_folder
from uno_jax.process.flags import define_path, define_paths, parse_flags, section_of
from uno_jax.process.paths import local_path
from uno_jax.process.start_up import set_up_jax
from uno_jax.sampling.text import TextConfig

_COMMANDS = "\n".join(line for line in (__doc__ or "").splitlines() if line.startswith("    /"))


class Chat:
    """A conversation, and the settings of its answers and pictures."""

    def __init__(
        self,
        conversation: Conversation,
        *,
        text: TextConfig,
        settings: PictureSettings,
        stop: Sequence[str],
        out: Path,
        console: Console,
        metadata: bool = True,
    ):
        self._conversation = conversation
        self._text, self._settings = text, settings
        self._stop = conversation.generator.stop_tokens(stop)
        self._out, self._console, self._metadata = out, console, metadata
        self._generated = 0

    def turn(self, line: str) -> bool:
        """Handles one line of input. Returns False if it quits."""
        command, *rest = line.split(maxsplit=1) or [""]
        argument = "".join(rest).strip()
        before = self._conversation
        try:
            _bytes_of(line).decode()
            match command:
                case "/quit":
                    return False
                case "/help":
                    self._say(_COMMANDS)
                case "/new":
                    self._conversation = Conversation(self._conversation.generator, self._conversation.think)
                    self._say("(a new conversation)")
                case "/think":
                    self._conversation = self._conversation.with_thinking(not self._conversation.think)
                    self._say(f"(thinking is {'on' if self._conversation.think else 'off'})")
                case "/image":
                    self.show(argument, "/image")
                case "/caption":
                    self._caption()
                case "/draw":
                    self._draw(argument)
                case _ if command.startswith("/"):
                    self._say(f"unknown command {command}. Commands:\n{_COMMANDS}")
                case "":
                    pass
                case _:
                    self._conversation = self._conversation.with_part(line.strip())
                    self._answer()
        except UnicodeDecodeError as error:
            self._say(f"error: byte {error.start + 1} of the line is not valid UTF-8; save the text as UTF-8")
        except Exception as error:
            message = user_message(error)
            if message is None:
                raise
            self._conversation = before  # without the text that was too long, for example
            self._say(f"error: {message.partition(': ')[2]}")
        except KeyboardInterrupt:
            self._say("(stopped)")
        return True

    def show(self, file: str, what: str) -> None:
        """Adds a picture to the conversation.

        Args:
          file: path of the picture. `~` is expanded, and quotes around it or backslashes before its spaces are removed.
          what: command or flag that names it, for error messages.

        Raises:
          UserError: the picture cannot be read.
        """
        if not file:
            raise UserError(f"{what} needs a file name")
        pixels = read_picture(_file_of(file), what)
        self._conversation = self._conversation.with_part(pixels)
        self._say(f"({file}: {pixels.shape[1]}x{pixels.shape[0]})")

    def _caption(self) -> None:
        if not self._conversation.parts:
            raise UserError("/caption needs a non-empty conversation; add a picture with /image FILE")
        self._answer()

    def _answer(self) -> None:
        blank = True
        for piece in self._conversation.answer(self._text, self._settings.seed, self._stop):
            self._console.print(piece.text, end="", markup=False, highlight=False)
            blank = blank and not piece.text.strip()
            self._conversation = piece.conversation or self._conversation
        self._say("(nothing)" if blank else "")

    def _draw(self, instruction: str) -> None:
        if not instruction:
            raise UserError("/draw needs a text that describes the picture, or the change of the last one")
        seed = self._settings.seed + self._generated
        settings = dataclasses.replace(self._settings, seed=seed, think=self._conversation.think)
        request = self._conversation.image_request(instruction, settings)
        metadata = picture_metadata(request, self._conversation.generator) if self._metadata else None
        self._out.mkdir(parents=True, exist_ok=True)
        generated, self._conversation = self._conversation.generate(instruction, settings)
        file = next(name for n in range(10**6) if not (name := self._out / f"picture-{n:03d}.png").exists())
        write_picture(file, generated.image, metadata, generated.thought)
        self._generated += 1
        if generated.thought:
            self._say(generated.thought)
        self._say(f"({file}: {generated.image.width}x{generated.image.height})")

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False)


def _file_of(text: str) -> str:
    """Returns the path that a text names, as it is or as a shell would read it."""
    if os.path.exists(text):
        return text
    try:
        [path] = shlex.split(text)
    except ValueError:  # several words, or a quote without its pair
        path = text
    try:
        return local_path(path)
    except ValueError as error:
        raise UserError(str(error)) from error


def main(arguments: Sequence[str], console: Console | None = None, source: io.TextIOBase | None = None) -> None:
    """Chats until the input ends. An invalid option is reported in one message."""
    options = flags.FlagValues()
    _define(options)
    parse_flags(options, arguments, command="chat", about=__doc__, required=("checkpoint",))
    console, lines = console or Console(soft_wrap=True), source or sys.stdin
    if isinstance(lines, io.TextIOWrapper):
        lines.reconfigure(errors="surrogateescape")  # invalid UTF-8 must not end the conversation
    set_up_jax()
    with exit_with_message():
        settings, text = picture_settings(options), text_config(options)
        check_folder(Path(options.out))
        conversation = Conversation(load_from_flags(options, thoughts=text), options.think)
        out = Path(options.out)
        chat = Chat(
            conversation,
            text=text,
            settings=settings,
            stop=options.stop,
            out=out,
            console=console,
            metadata=options.metadata == "all",
        )
        for image in options.image:
            chat.show(image, "--image")
        for line in _lines(lines, console):
            if not chat.turn(line):
                return


def _define(options: flags.FlagValues) -> None:
    define_model(options)
    place = section_of(options, "conversation")
    define_paths(options, "image", "picture at the start of the conversation", "conversation")
    flags.DEFINE_boolean("think", False, "reason before answers and pictures", **place)
    define_path(options, "out", "pictures", "folder of generated pictures", "conversation")
    define_metadata(options, "conversation", "")
    note = "token that ends an answer, in addition to the model's end token"
    flags.DEFINE_multi_string("stop", [], note, **place)
    define_texts(options)
    define_pictures(options)


def _lines(source: TextIO | io.TextIOBase, console: Console) -> Iterator[str]:
    if source.isatty():
        with contextlib.suppress(EOFError, KeyboardInterrupt):
            import readline  # noqa: F401  # gives input() a history and line editing

            console.print(_COMMANDS, markup=False, highlight=False)
            while True:
                yield input("> ")
        return
    for line in source:
        line = line.removeprefix("\ufeff")  # some editors write a byte order mark
        shown = _bytes_of(line.rstrip()).decode(errors="backslashreplace")
        console.print(f"> {shown}", markup=False, highlight=False)
        yield line


def _bytes_of(line: str) -> bytes:
    """Returns the bytes as they were read, valid UTF-8 or not."""
    return line.encode(errors="surrogateescape")


if __name__ == "__main__":
    main(sys.argv[1:])
