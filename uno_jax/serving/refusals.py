"""Refusals of requests, and their form in OpenAI's API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from uno_jax.process.errors import UserError, user_message

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
    504: "timeout_error",
}
"""HTTP status -> type of the error."""


class Refusal(Exception):
    """A request that gets no result: an HTTP status, and one sentence that says why and what to do."""

    def __init__(self, status: int, message: str, code: str | None = None, headers: Mapping[str, str] = {}):
        super().__init__(message)
        self.status, self.message, self.code, self.headers = status, message, code, dict(headers)

    @property
    def body(self) -> dict[str, Any]:
        """The refusal as OpenAI's API writes it."""
        kind = _TYPES.get(self.status, "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": None, "code": self.code}}


def program_failed() -> Refusal:
    """Returns the refusal of a request at which the program failed. The error itself is for the log."""
    return Refusal(500, "the server failed at this request; its log says why", "internal_error")


class ClientGone(Exception):
    """Raised when the client of a request has closed its connection."""


def refusal_of(error: Exception) -> Refusal | None:
    """Returns the refusal that an error means for a client; None for an error of the program.

    A `UserError` is the client's: status 400. A lack of memory and values that are not finite have status 500.
    """
    if isinstance(error, Refusal):
        return error
    message = user_message(error)
    if message is None or isinstance(error, OSError):
        return None
    sentence = "; ".join(message.partition(": ")[2].splitlines())
    return Refusal(400 if isinstance(error, UserError) else 500, sentence)
