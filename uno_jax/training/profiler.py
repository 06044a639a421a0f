"""Profiles of some steps for xprof, with traces of devices and host."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import jax

Outputs = TypeVar("Outputs")


@dataclass(frozen=True)
class ProfileConfig:
    """Steps of a run to profile."""

    steps: int = 0
    """Number of consecutive steps; 0 = no profile. A few are enough, because the files are large."""
    after: int = 5
    """Steps to skip after the program starts. The first ones compile."""


class Profiler:
    """Profiles some calls of a step. Writes `directory/plugins/profile/<time>/<host>.xplane.pb`, one per host."""

    def __init__(self, config: ProfileConfig, directory: Path):
        self._config = config
        self._directory = directory
        self._calls = 0
        self._running = False

    def around(self, step: Callable[..., Outputs]) -> Callable[..., Outputs]:
        """Wraps a step so that the configured calls are profiled. The last profiled call waits for its outputs."""
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
        """Ends an incomplete profile and writes it."""
        if self._running:
            self._running = False
            jax.profiler.stop_trace()
