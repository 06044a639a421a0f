"""Coroutines in a command: their result, their exceptions, and the end by one of the main thread."""

from __future__ import annotations

import asyncio
import signal
import threading

import pytest

from uno_jax.process.coroutines import run_coroutine
from uno_jax.process.signals import exit_on_signals


def test_the_result_of_a_coroutine_is_returned():
    async def main() -> int:
        await asyncio.sleep(0)
        return 7

    assert run_coroutine(main()) == 7


def test_an_exception_of_a_coroutine_is_raised():
    async def main() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        run_coroutine(main())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cancels_a_coroutine_which_cleans_up(number):
    done: list[str] = []

    async def main() -> None:
        asyncio.get_running_loop().call_soon(signal.pthread_kill, threading.main_thread().ident, number)
        try:
            await asyncio.sleep(600)
        finally:
            await asyncio.sleep(0)
            done.append("cleaned up")

    with pytest.raises(SystemExit) as exit, exit_on_signals():
        run_coroutine(main())
    assert (exit.value.code, done) == (128 + number, ["cleaned up"])
