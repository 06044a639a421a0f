"""Contexts that keep signals from interrupting work halfway."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from tests.helpers.released_lock import released_twice
from uno_jax.process.signals import exit_on_signals, exit_status, signals_held, stop_event

SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]


def exits(signum: int, frame: object) -> None:
    raise InterruptedError(signum)


@pytest.fixture(params=SIGNALS)
def signum(request) -> int:
    """Number of a signal whose handler outside of all contexts raises InterruptedError."""
    previous = {number: signal.signal(number, exits) for number in SIGNALS}
    yield request.param
    for number, handler in previous.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("second", SIGNALS)
def test_a_signal_that_is_repeated_at_once_changes_nothing(signum, second):
    with stop_event() as stop:
        signal.raise_signal(signum)
        signal.raise_signal(second)
    assert stop.is_set()
    assert exit_status() == 128 + signum


def test_a_lost_terminal_stays_ignored_where_it_is():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_event() as stop:
            signal.raise_signal(signal.SIGHUP)
        assert not stop.is_set()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_sets_the_event_and_one_some_seconds_later_acts_as_outside(signum):
    with stop_event(repeats=0) as stop:
        signal.raise_signal(signum)
        assert stop.is_set()
        with pytest.raises(InterruptedError):
            signal.raise_signal(signum)


def test_a_signal_becomes_an_exit_with_its_status(signum):
    with pytest.raises(SystemExit) as exited, exit_on_signals():
        signal.raise_signal(signum)
    assert exited.value.code == 128 + signum


def test_a_signal_that_a_lock_replaced_by_its_own_error_becomes_the_same_exit(signum):
    with pytest.raises(SystemExit) as exited, exit_on_signals(), released_twice():
        signal.raise_signal(signum)
    assert exited.value.code == 128 + signum


def get_while_held(*signals: int, done: list[str], error: Exception | None = None) -> None:
    with signals_held():
        for number in signals:
            signal.raise_signal(number)
        if error:
            raise error
        done.append("block")


def test_a_held_signal_acts_at_the_end_of_the_block(signum):
    done: list[str] = []
    with pytest.raises(InterruptedError, match=str(int(signum))):
        get_while_held(signum, done=done)
    assert done == ["block"]


def test_a_held_signal_acts_after_an_error_in_the_block(signum):
    error = ValueError()
    with pytest.raises(InterruptedError) as interrupted:
        get_while_held(signum, done=[], error=error)
    assert interrupted.value.__context__ is error


class SignalWhenFreed:
    """Receives a signal in its finaliser, where Python ignores exceptions."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGTERM)


def free_and_wait() -> None:
    thing = SignalWhenFreed()
    del thing
    time.sleep(5)


def test_a_signal_in_a_finaliser_still_becomes_an_exit():
    with pytest.raises(SystemExit) as error, exit_on_signals():
        free_and_wait()
    assert error.value.code == 128 + signal.SIGTERM


@pytest.mark.parametrize("second", SIGNALS)
def test_the_second_signal_is_not_held(signum, second):
    done: list[str] = []
    with pytest.raises(InterruptedError):
        get_while_held(signum, second, done=done)
    assert done == []


def test_a_held_signal_goes_to_the_enclosing_context(signum):
    with stop_event() as stop:
        with signals_held():
            signal.raise_signal(signum)
            assert not stop.is_set()
        assert stop.is_set()


@pytest.mark.parametrize("context", [stop_event, exit_on_signals, signals_held])
def test_handlers_are_restored_at_the_end_of_a_block(signum, context):
    with context():
        assert signal.getsignal(signum) is not exits
    assert signal.getsignal(signum) is exits


@pytest.mark.parametrize("context", [stop_event, exit_on_signals, signals_held])
def test_contexts_in_another_thread_change_no_handlers(signum, context):
    seen = []

    def look() -> None:
        with context():
            seen.append(signal.getsignal(signum))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [exits]
