"""What libraries log, where a command says the same in one line."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import absl.logging


def hide_orbax() -> None:
    """Hides what Orbax logs, and what the writes say that it leaves behind after one of them has failed.

    These end when their event loop has been closed, each with a traceback. The call that failed raises an exception.
    """
    absl.logging.get_absl_logger().addFilter(_is_not_of_orbax)  # all libraries share this logger
    logging.getLogger("asyncio").addFilter(_is_not_left_behind)
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    if not isinstance(sys.unraisablehook, _WithoutClosedLoops):
        sys.unraisablehook = _WithoutClosedLoops(sys.unraisablehook)


def _is_not_of_orbax(record: logging.LogRecord) -> bool:
    return "/site-packages/orbax/" not in record.pathname.replace("\\", "/")


def _is_not_left_behind(record: logging.LogRecord) -> bool:
    return "exception was never retrieved" not in record.getMessage()


@dataclass(frozen=True)
class _WithoutClosedLoops:
    """A `sys.unraisablehook` without the errors of callbacks that find their event loop closed."""

    others: Callable[[Any], object]

    def __call__(self, unraisable: Any) -> None:
        error = unraisable.exc_value
        if not (isinstance(error, RuntimeError) and str(error) == "Event loop is closed"):
            self.others(unraisable)
