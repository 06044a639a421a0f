"""A conversation with a model: what was said and shown so far, and how much of it has been read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from uno_jax.inference.contexts import ContextPart
from uno_jax.inference.generate import GeneratedImage, Generator, Request
from uno_jax.inference.picture_settings import PictureSettings
from uno_jax.inference.reader import ReadPlans
from uno_jax.sampling.text import TextConfig

# Tokens between two looks at what was written: each costs a call, all of them the reader's patience.
TOKENS_AT_ONCE = 4


@dataclass(frozen=True)
class Conversation:
    """Texts and pictures in their order. Every method gives a new conversation and leaves this one as it is."""

    generator: Generator
    think: bool = False
    """The model reasons before it answers; its reasoning stays in the conversation."""
    parts: tuple[ContextPart, ...] = ()
    read: ReadPlans | None = None
    """The beginning that answers were written after: what comes later goes on from there."""

    def with_part(self, part: ContextPart) -> Conversation:
        """Goes on with a text or a picture."""
        return replace(self, parts=(*self.parts, part))

    def with_thinking(self, think: bool) -> Conversation:
        """The same, with or without reasoning from now on; it is read anew, for the system prompt comes first."""
        return replace(self, think=think, read=None)

    def answer(self, text: TextConfig, seed: int = 0, stop: tuple[int, ...] = ()) -> Iterator[Piece]:
        """Reads what is new, and writes an answer: yields a piece of text at a time, and at last the conversation."""
        reader = self.generator.reader
        plan = self.generator.answering_plan(self.parts, think=self.think)
        read = reader.read([plan], [0], self.read)
        written = ""
        for [ids] in reader.write(read, text, [seed], stop=stop, at_once=TOKENS_AT_ONCE):
            # A character may be several tokens: what is not whole yet is not shown.
            so_far = reader.model.tokenizer.decode(ids)
            whole = so_far.rstrip("\ufffd")
            yield Piece(whole[len(written) :], None)
            written = whole
        yield Piece(so_far[len(written) :], replace(self.with_part(so_far), read=read))

    def image_request(self, instruction: str, settings: PictureSettings) -> Request:
        """A picture from all there is and the instruction, which `generate` generates."""
        return Request((*self.parts, instruction), settings)

    def generate(self, instruction: str, settings: PictureSettings) -> tuple[GeneratedImage, Conversation]:
        """Generates a picture from all there is and the instruction; both come to the conversation.

        Raises:
          ValueError: a size that the model cannot generate.
        """
        [(_, generated)] = self.generator.generate([self.image_request(instruction, settings)])
        return generated, self.with_part(instruction).with_part(generated.image)


class Piece(NamedTuple):
    """Of an answer that is being written."""

    text: str
    conversation: Conversation | None
    """With the answer in it; None until it is complete."""
