"""Asks a language model behind an endpoint in OpenAI's format, and keeps its answers on disk."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from uno_jax.process.errors import UserError, reason_of
from uno_jax.process.files import write_json
from uno_jax.process.json_reader import JsonError, read_json_object

KEY = "OPENAI_API_KEY"
"""Environment variable with the key of the endpoint, if it needs one."""

_WRITING = threading.Lock()  # of answers: two questions may be the same
_UNREADABLE = 3  # times that a question is asked, if its answers cannot be read


class JudgeError(UserError):
    """Raised for an endpoint that cannot judge anything."""


class NoAnswer(Exception):
    """Raised for a question without a readable answer. The message is the reason, for counting."""


class Answer(NamedTuple):
    """An answer of a judge."""

    text: str
    model: str
    """Name of the model, as the endpoint states it."""
    fingerprint: str
    """Version of the model, if the endpoint states one."""
    time: str
    """When it was given, in UTC."""


@dataclass(frozen=True)
class Endpoint:
    """A language model, and how it is asked."""

    url: str
    """Base URL, such as `http://localhost:8000/v1`."""
    model: str
    cache: Path
    """Folder of the answers. They are kept by model, temperature, length and question, and not by URL."""
    temperature: float = 0.0
    max_tokens: int = 2000
    retries: int = 6
    """Times that a request is repeated after a lost connection or status 408, 409, 429 or 5xx, with growing waits."""
    timeout: float = 120.0
    """Seconds of a request."""

    def __post_init__(self) -> None:
        if self.url and not self.url.startswith(("http://", "https://")):
            raise JudgeError(f"judge_url is {self.url!r}: expected a URL such as http://localhost:8000/v1")
        for name, value, least in (("retries", self.retries, 0), ("max_tokens", self.max_tokens, 1)):
            if value < least:
                raise JudgeError(f"judge_{name} is {value}: expected at least {least}")
        if not 0 < self.timeout < math.inf or not 0 <= self.temperature < math.inf:
            raise JudgeError("judge_timeout must be above 0, and judge_temperature 0 or more")

    def client(self) -> Any:
        """Returns OpenAI's client, which threads may share.

        Raises:
          JudgeError: it is not installed.
        """
        try:
            import openai
        except ImportError as error:
            raise JudgeError("a judge needs OpenAI's client: pip install 'uno-jax[judge]'") from error
        key = os.environ.get(KEY) or "none"
        return openai.OpenAI(base_url=self.url, api_key=key, max_retries=self.retries, timeout=self.timeout)

    def kept(self, text: str, pictures: Sequence[Path]) -> Answer | None:
        """Returns the answer on disk, if there is one."""
        try:
            return Answer(**read_json_object(self._file(text, pictures)))
        except (FileNotFoundError, JsonError, TypeError):
            return None

    def ask(self, client: Any, text: str, pictures: Sequence[Path], readable: Callable[[str], bool]) -> Answer:
        """Asks a question about pictures until the answer can be read, and keeps this answer.

        Raises:
          NoAnswer: there is no such answer.
          JudgeError: the endpoint refuses the key or does not know the model.
        """
        content = [{"type": "text", "text": text}, *map(_picture, pictures)]
        reason = ""
        for _ in range(_UNREADABLE):
            try:
                answer = self._answer(client, content)
            except _Invalid as error:
                reason = str(error)
                continue
            if readable(answer.text):
                with _WRITING:
                    write_json(self._file(text, pictures), answer._asdict())
                return answer
            reason = "unreadable answer"
        raise NoAnswer(reason)

    def _answer(self, client: Any, content: list[dict[str, Any]]) -> Answer:
        import openai

        try:
            reply = client.chat.completions.create(
                model=self.model,
                messages=[{"role": "user", "content": content}],
                temperature=self.temperature,
                max_tokens=self.max_tokens,
            )
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
            raise JudgeError(
                f"{self.url} refuses to judge ({reason_of(error)}); check --judge_url, --judge_model and {KEY}"
            ) from error
        except openai.APITimeoutError as error:
            raise NoAnswer("no answer in time") from error
        except openai.APIStatusError as error:
            raise NoAnswer(f"status {error.status_code}") from error
        except openai.APIConnectionError as error:
            raise NoAnswer("no connection") from error
        except (openai.OpenAIError, ValueError) as error:  # a body that is no JSON, or not as OpenAI's
            raise _Invalid("invalid reply") from error
        choices = getattr(reply, "choices", None)
        text = choices[0].message.content if choices and choices[0].message else None
        if not isinstance(text, str):
            raise _Invalid("invalid reply")
        fingerprint = getattr(reply, "system_fingerprint", None)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return Answer(text, str(reply.model or ""), str(fingerprint or ""), now)

    def _file(self, text: str, pictures: Sequence[Path]) -> Path:
        shown = [hashlib.sha256(file.read_bytes()).hexdigest() for file in pictures]
        asked = json.dumps([self.model, self.temperature, self.max_tokens, text, shown])
        return self.cache / f"{hashlib.sha256(asked.encode()).hexdigest()}.json"


class _Invalid(Exception):
    """A reply that is not in OpenAI's format."""


def _picture(file: Path) -> dict[str, Any]:
    content = file.read_bytes()
    kind = "jpeg" if content.startswith(b"\xff\xd8") else "webp" if content[8:12] == b"WEBP" else "png"
    url = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}
