"""Decides when a run saves its state, and tries again what failed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from uno_jax.process.errors import CheckpointError
from uno_jax.training.checkpoint_folders import DataState
from uno_jax.training.checkpoints import CheckpointConfig, Checkpoints
from uno_jax.training.state import Params, TrainState

# Seconds from the second failure to the next attempt. They double with every further failure.
_FIRST_WAIT, _LONGEST_WAIT = 10.0, 600.0


class Saver:
    """Saves the state of a run when it is due by steps, by time, or because the last attempt failed.

    A failed attempt is reported in one line, and training goes on. The next step is saved instead. If that fails too,
    further attempts follow in growing intervals.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        config: CheckpointConfig,
        say: Callable[[str], None] = print,
        now: Callable[[], float] = time.monotonic,
    ):
        """`say` shows a line to the user. `now` returns the time in seconds."""
        self.checkpoints = checkpoints
        self._config, self._say, self._now = config, say, now
        self._failures = 0
        self._attempt: int | None = None
        self._due_at = self._next_by_time()

    def due(self, step: int) -> bool:
        """Whether a checkpoint of this step is due by the number of steps."""
        return any(every > 0 and step % every == 0 for every in (self._config.every, self._config.keep_every))

    def wants(self) -> bool:
        """Whether this host wants the next step saved, because of the time or a failure. Does not block."""
        failed = self.checkpoints.failure() is not None
        self._report_success()
        return failed or self._now() >= self._due_at

    def save(self, step: int, state: TrainState, data_state: DataState, autoencoder: Params | None = None) -> None:
        """Starts saving the state. Called by all hosts. A failure is reported and retried later.

        Raises:
          CheckpointError: saving failed and cannot be tried again.
          FloatingPointError: the state is not finite.
        """
        try:
            self.checkpoints.wait()
        except CheckpointError as error:
            self._failed(error)
        self._report_success()
        self._attempt, self._due_at = step, self._next_by_time()
        try:
            self.checkpoints.save(step, state, data_state, autoencoder)
        except CheckpointError as error:
            self._failed(error)

    def save_last(
        self,
        step: int,
        state: TrainState,
        data_state: DataState,
        autoencoder: Params | None = None,
        *,
        patience: float,
        sleep: Callable[[float], Any] = time.sleep,
    ) -> None:
        """Saves the state and waits until it is on disk. Called by all hosts.

        A failed attempt is repeated for `patience` seconds. `sleep` waits between attempts; if it returns early, so do
        all attempts that are left.

        Raises:
          CheckpointError: the state could not be saved. The message names the newest checkpoint.
          FloatingPointError: the state is not finite.
        """
        wait, waited = 1.0, 0.0
        while True:
            try:
                self.checkpoints.save(step, state, data_state, autoencoder)
                self.checkpoints.wait()
                return
            except CheckpointError as error:
                if waited >= patience or not self.checkpoints.usable:
                    raise CheckpointError(f"{error}. {self._what_is_left(step)}") from None
                self._say(f"{error}. Trying again in {wait:.0f} s.")
            sleep(wait)
            wait, waited = 2 * wait, waited + wait

    def _report_success(self) -> None:
        """Says so if the last attempt succeeded after others had failed."""
        if self._failures and self.checkpoints.saved == self._attempt:
            attempts = "a failed attempt" if self._failures == 1 else f"{self._failures} failed attempts"
            self._say(f"The checkpoint of step {self._attempt} is saved, after {attempts}.")
            self._failures = 0

    def _failed(self, error: CheckpointError) -> None:
        if not self.checkpoints.usable:
            raise error
        self._failures += 1
        wait = 0.0 if self._failures == 1 else min(_FIRST_WAIT * 2 ** (self._failures - 2), _LONGEST_WAIT)
        self._due_at = self._now() + wait
        when = f"in {wait:.0f} s" if wait else "at once"
        self._say(f"{error}. Training goes on and earlier checkpoints are kept; trying again {when}.")

    def _what_is_left(self, step: int) -> str:
        steps = [saved for saved in self.checkpoints.steps() if saved != step]
        left = f"the newest checkpoint is of step {steps[-1]}" if steps else "there is no checkpoint"
        return f"The state of step {step} is lost; {left}. Make the folder writable, and run the same command to go on"

    def _next_by_time(self) -> float:
        minutes = self._config.every_minutes
        return self._now() + 60 * minutes if minutes > 0 else float("inf")
