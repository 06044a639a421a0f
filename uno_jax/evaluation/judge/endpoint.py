"""Asks a language model behind an endpoint in OpenAI's format, and keeps its answers on disk."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from uno_jax.process.errors import UserError, reason_of
from uno_jax.process.files import write_json
from uno_jax.process.json_reader import JsonError, read_json_object

KEY = "OPENAI_API_KEY"
"""Environment variable with the key of the endpoint, if it needs one."""

_UNREADABLE = 3  # times that a question is asked, if its answers cannot be read
_SHOWN = 200  # characters of an answer or an error in messages
_WEB_PAGE = "a web page"
_PAGE = re.compile(r"\s*<(?:!doctype|html|head|body)\b", re.IGNORECASE)
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)


class JudgeError(UserError):
    """Raised for an endpoint that cannot judge anything."""


class NoAnswer(Exception):
    """Raised for a question without a readable answer. The message is the reason, for counting."""

    def __init__(self, reason: str, detail: str = "", *, lost: bool = False):
        """Takes the reason, what the endpoint or the answer said, and whether the endpoint itself seems to be lost."""
        super().__init__(reason)
        self.detail, self.lost = detail, lost


class Answer(NamedTuple):
    """An answer of a judge."""

    text: str
    model: str
    """Name of the model, as the endpoint states it."""
    fingerprint: str
    """Version of the model, if the endpoint states one."""
    time: str
    """When it was given, in UTC."""


class Shown(NamedTuple):
    """What a judge sees: a text, and pictures after it."""

    text: str
    pictures: tuple[Path, ...]
    captions: tuple[str, ...] = ()
    """A line before each picture; () = none."""


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
        if self.url:
            _check_url(self.url)
        for name, value, least in (("retries", self.retries, 0), ("max_tokens", self.max_tokens, 1)):
            if value < least:
                raise JudgeError(f"judge_{name} is {value}: expected at least {least}")
        if not 0 < self.timeout < math.inf or not 0 <= self.temperature < math.inf:
            raise JudgeError("judge_timeout must be above 0, and judge_temperature 0 or more")

    def client(self) -> Any:
        """Returns OpenAI's client for coroutines, which is closed by `async with`.

        Raises:
          JudgeError: it is not installed, or the key is none.
        """
        try:
            import openai
        except ImportError as error:
            raise JudgeError("a judge needs OpenAI's client: pip install 'uno-jax[judge]'") from error
        key = os.environ.get(KEY) or "none"
        if not re.fullmatch(r"[!-~]+", key):
            raise JudgeError(f"{KEY} has spaces, line breaks or letters that are not ASCII; set it to the key alone")
        return openai.AsyncOpenAI(base_url=self.url, api_key=key, max_retries=self.retries, timeout=self.timeout)

    def kept(self, shown: Shown) -> Answer | None:
        """Returns the answer on disk, if there is one. Half of one is none."""
        try:
            answer = Answer(**read_json_object(self._file(shown)))
        except (FileNotFoundError, JsonError, TypeError):
            return None
        return answer if all(isinstance(value, str) for value in answer) else None

    async def ask(self, client: Any, shown: Shown, readable: Callable[[str], bool]) -> Answer:
        """Asks a question until the answer can be read, and keeps this answer.

        Raises:
          NoAnswer: there is no such answer.
          JudgeError: the endpoint refuses the key or does not know the model.
        """
        captions = shown.captions or ("",) * len(shown.pictures)
        content = [{"type": "text", "text": shown.text}]
        for caption, file in zip(captions, shown.pictures, strict=True):
            content += [*([{"type": "text", "text": caption}] if caption else []), _picture(file)]
        failure = NoAnswer("")
        for _ in range(_UNREADABLE):
            try:
                answer, cut = await self._answer(client, content)
            except _Invalid as error:
                failure = NoAnswer(str(error), error.detail, lost=str(error) == _WEB_PAGE)
                continue
            if readable(answer.text):
                write_json(self._file(shown), answer._asdict())
                return answer
            failure = NoAnswer("cut off by --judge_max_tokens" if cut else "unreadable answer", _line(answer.text))
        raise failure

    async def _answer(self, client: Any, content: list[dict[str, Any]]) -> tuple[Answer, bool]:
        """Returns an answer, and whether it ended because it was too long."""
        import openai

        try:
            reply = await client.chat.completions.create(
                model=self.model,
                messages=[{"role": "user", "content": content}],
                temperature=self.temperature,
                max_tokens=self.max_tokens,
            )
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
            raise self._refusal(error) from error
        except openai.APITimeoutError as error:
            raise NoAnswer("no answer in time", lost=True) from error
        except openai.APIStatusError as error:
            lost = error.status_code in (408, 409, 429) or error.status_code >= 500
            raise NoAnswer(f"status {error.status_code}", _said(error.body), lost=lost) from error
        except openai.APIConnectionError as error:
            raise NoAnswer("no connection", reason_of(_first_cause(error)), lost=True) from error
        except (openai.OpenAIError, ValueError) as error:  # a body that is no JSON, or not as OpenAI's
            raise _Invalid("invalid reply", _line(str(error))) from error
        if isinstance(reply, str):  # a reply that is not marked as JSON
            page = _PAGE.match(reply)
            raise _Invalid(_WEB_PAGE if page else "invalid reply", _title(reply) if page else _line(reply))
        choices = getattr(reply, "choices", None)
        message = choices[0].message if choices else None
        refusal, end = getattr(message, "refusal", None), choices[0].finish_reason if choices else None
        if refusal or end == "content_filter":
            raise NoAnswer("refusal", _line(str(refusal or "content filter")))
        if message is None or not isinstance(message.content, str):
            raise _Invalid("invalid reply", _said(getattr(reply, "error", None)) or "there is no text in it")
        fingerprint = getattr(reply, "system_fingerprint", None)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return Answer(message.content, str(reply.model or ""), str(fingerprint or ""), now), end == "length"

    def _refusal(self, error: Any) -> JudgeError:
        """Says why an endpoint will not judge anything, and what to do."""
        said = f"status {error.status_code}: {_said(error.body) or 'no reason given'}"
        if error.status_code == 401:
            key = f"the key in {KEY}" if os.environ.get(KEY) else f"requests without a key, and {KEY} is not set"
            return JudgeError(
                f"{self.url} refuses to judge: it refuses {key} ({said}); set it to a key of this endpoint"
            )
        if error.status_code == 403:
            return JudgeError(f"{self.url} refuses to judge ({said}); check {KEY}, --judge_model and --judge_url")
        path = "" if "/v1" in urlsplit(self.url).path else ", whose path usually ends in /v1"
        return JudgeError(
            f"{self.url} refuses to judge: it knows no model {self.model!r}, or is no endpoint in OpenAI's format "
            f"({said}); check --judge_model and --judge_url{path}"
        )

    def _file(self, shown: Shown) -> Path:
        hashes = [_hash(str(file), (stat := file.stat()).st_mtime_ns, stat.st_size) for file in shown.pictures]
        asked = json.dumps([self.model, self.temperature, self.max_tokens, shown.text, hashes, *shown.captions])
        return self.cache / f"{hashlib.sha256(asked.encode()).hexdigest()}.json"


class _Invalid(Exception):
    """A reply that is not in OpenAI's format."""

    def __init__(self, reason: str, detail: str):
        super().__init__(reason)
        self.detail = detail


def _check_url(url: str) -> None:
    """Requires a base URL.

    Raises:
      JudgeError: it is not.
    """
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:  # a port that is no number, or too large
        valid = False
    if not valid or parts.query or parts.fragment or re.search(r"\s", url):
        raise JudgeError(f"judge_url is {url!r}: expected a URL such as http://localhost:8000/v1")
    if "@" in parts.netloc:  # it would be on record
        raise JudgeError(f"judge_url has a name or a password; set {KEY} to the key, and give the URL without them")
    if parts.path.rstrip("/").endswith("/completions"):
        raise JudgeError(f"judge_url is {url!r}: give the base URL, without /chat/completions")


@functools.cache
def _hash(file: str, changed: int, size: int) -> str:
    """Returns the SHA-256 of a picture. Several questions show the same one."""
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


def _picture(file: Path) -> dict[str, Any]:
    content = file.read_bytes()
    kind = "jpeg" if content.startswith(b"\xff\xd8") else "webp" if content[8:12] == b"WEBP" else "png"
    url = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def _said(body: object) -> str:
    """Returns one line of what an endpoint says: its message, or the title of a page."""
    texts = [body.get(name) for name in ("message", "detail")] if isinstance(body, Mapping) else [body]
    text = next((each for each in texts if isinstance(each, str)), "")
    return f"{_WEB_PAGE}, {_title(text)}" if _PAGE.match(text) else _line(text)


def _title(page: str) -> str:
    found = _TITLE.search(page)
    return f"its title is {_line(found[1])!r}" if found else "without a title"


def _line(text: str) -> str:
    """Returns the beginning of a text, in one line."""
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}.."


def _first_cause(error: BaseException) -> Exception:
    while error.__cause__ is not None:
        error = error.__cause__
    return error if isinstance(error, Exception) else Exception(type(error).__name__)
