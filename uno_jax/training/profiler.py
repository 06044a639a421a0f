"""A profile of some steps, for xprof: what the devices did, and when, and what the host did meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import jax

Outputs = TypeVar("Outputs")


@dataclass(frozen=True)
class ProfileConfig:
    """Which steps of a run are profiled."""

    steps: int = 0
    """How many, in a row; 0: none. A few are enough, and their files are large."""
    after: int = 5
    """Steps of this start of the program that go before: the first ones compile."""


class Profiler:
    """Profiles some calls of a step: files go to `directory/plugins/profile/<time>/<host>.xplane.pb`, one a host."""

    def __init__(self, config: ProfileConfig, directory: Path):
        self._config = config
        self._directory = directory
        self._calls = 0
        self._running = False

    def around(self, step: Callable[..., Outputs]) -> Callable[..., Outputs]:
        """The step, profiled when it is its turn. The last profiled call waits for its outputs."""
        if not self._config.steps:
            return step

        def profiled(*arguments: Any) -> Outputs:
            first = self._config.after
            if self._calls == first:
                jax.profiler.start_trace(str(self._directory))
                self._running = True
            with jax.profiler.StepTraceAnnotation("train", step_num=self._calls):
                outputs = step(*arguments)
            self._calls += 1
            if self._running and self._calls == first + self._config.steps:
                jax.block_until_ready(outputs)
                self.close()
            return outputs

        return profiled

    def close(self) -> None:
        """Ends a profile that is not complete; it is written as it is."""
        if self._running:
            self._running = False
            jax.profiler.stop_trace()
