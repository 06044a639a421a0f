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

    def __init__(self, config: ProfileConfig, directory: Path, say: Callable[[str], None] = print):
        """`say` shows a warning to the user: a profile that cannot be written does not end a run."""
        self._config, self._say = config, say
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
                self._running = self._tried(self._start)
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
            self._tried(jax.profiler.stop_trace)

    def _start(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)  # the profiler only notices at the end
        jax.profiler.start_trace(str(self._directory))

    def _tried(self, act: Callable[[], None]) -> bool:
        """Whether the profiler could do something."""
        try:
            act()
        except (OSError, RuntimeError) as error:  # of the file system, or of the profiler in C++
            reason = getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]
            self._say(f"warning: {self._directory}: the profile cannot be written ({reason}). Training goes on.")
            return False
        return True
