"""Runs of the command `train` on a tiny model, in a process of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.helpers.paths import ROOT


class Training:
    """A process that runs `python -m uno_jax.train`. As a context, it is killed at the end."""

    def __init__(self, config: Path, workdir: Path, *arguments: str, compiled: Path):
        """Starts it. `compiled` is the folder of the compilation cache."""
        environment = {
            "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": str(compiled),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        self._output = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process
        self.process = subprocess.Popen(
            [sys.executable, "-m", "uno_jax.train", f"--config={config}", f"--workdir={workdir}", *arguments],
            cwd=ROOT,
            env=os.environ | environment,
            stdout=self._output,
            stderr=subprocess.STDOUT,
        )

    def __enter__(self) -> Training:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait()
        self._output.close()

    @property
    def printed(self) -> str:
        """Everything printed so far."""
        self._output.seek(0)
        return self._output.read()

    def wait_until(self, happened: Callable[[], bool], seconds: float = 600) -> None:
        """Waits until something has happened while the process runs."""
        deadline = time.monotonic() + seconds
        while not happened():
            assert self.process.poll() is None, f"ended with status {self.process.returncode}:\n{self.printed}"
            assert time.monotonic() < deadline, f"not within {seconds} s:\n{self.printed}"
            time.sleep(0.02)

    def wait_for(self, text: str, seconds: float = 600) -> None:
        """Waits until the process has printed a text."""
        self.wait_until(lambda: text in self.printed, seconds)

    def finish(self, seconds: float = 1200) -> int:
        """Waits for the end and returns the exit status."""
        return self.process.wait(seconds)

    def terminate(self, seconds: float = 60) -> int:
        """Sends SIGTERM, waits for the end and returns the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)
