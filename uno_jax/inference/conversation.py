"""A conversation with a model: its texts and pictures, and the key-value cache of what has been read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from uno_jax.inference.contexts import ContextPart
from uno_jax.inference.generate import GeneratedImage, Generator, Request
from uno_jax.inference.picture_settings import PictureSettings
from uno_jax.inference.reader import ReadPlans
from uno_jax.sampling.text import TextConfig

# Tokens per streamed piece. Few tokens cost more calls, many delay the output.
TOKENS_AT_ONCE = 4


@dataclass(frozen=True)
class Conversation:
    """Texts and pictures in order. Methods return a new conversation and leave this one unchanged."""

    generator: Generator
    think: bool = False
    """Whether the model reasons before it answers. The reasoning stays in the conversation."""
    parts: tuple[ContextPart, ...] = ()
    read: ReadPlans | None = None
    """Cache of the parts read so far, which the next answer extends."""

    def with_part(self, part: ContextPart) -> Conversation:
        """Appends a text or a picture."""
        return replace(self, parts=(*self.parts, part))

    def with_thinking(self, think: bool) -> Conversation:
        """Turns reasoning on or off. All parts are read again, because the system prompt comes first."""
        return replace(self, think=think, read=None)

    def answer(self, text: TextConfig, seed: int = 0, stop: tuple[int, ...] = ()) -> Iterator[Piece]:
        """Reads the new parts and yields an answer in pieces; the last piece holds the new conversation."""
        reader = self.generator.reader
        plan = self.generator.answering_plan(self.parts, think=self.think, text=text)
        read = reader.read([plan], [0], self.read)
        written = ""
        for [ids] in reader.write(read, text, [seed], stop=stop, at_once=TOKENS_AT_ONCE):
            # A character may be several tokens. An incomplete one is held back.
            so_far = reader.model.tokenizer.decode(ids)
            complete = so_far.rstrip("\ufffd")
            yield Piece(complete[len(written) :], None)
            written = complete
        yield Piece(so_far[len(written) :], replace(self.with_part(so_far), read=read))

    def image_request(self, instruction: str, settings: PictureSettings) -> Request:
        """Returns the request for a picture from the whole conversation and the instruction."""
        return Request((*self.parts, instruction), settings)

    def generate(self, instruction: str, settings: PictureSettings) -> tuple[GeneratedImage, Conversation]:
        """Generates a picture from the conversation and the instruction, and appends both.

        Raises:
          ValueError: the model does not support the size.
        """
        [(_, generated)] = self.generator.generate([self.image_request(instruction, settings)])
        return generated, self.with_part(instruction).with_part(generated.image)


class Piece(NamedTuple):
    """Piece of a streamed answer."""

    text: str
    conversation: Conversation | None
    """Conversation with the answer; None before the last piece."""
