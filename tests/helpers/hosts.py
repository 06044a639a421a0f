"""Several processes on this machine as the hosts of one program, each with its own CPU devices."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import NamedTuple

from tests.helpers.paths import ROOT


class Ended(NamedTuple):
    """Result of a process."""

    status: int
    printed: str
    """Combined standard output and error."""


class Hosts:
    """Processes that run `python ARGUMENTS --coordinator=.. --processes=.. --process=..` in the project's root.

    `{host}` in an argument is replaced by the index of the process.
    """

    def __init__(self, arguments: Sequence[str], *, hosts: int, devices: int, settings: dict[str, str] | None = None):
        """Starts the processes, each with `devices` devices. `settings` are environment variables."""
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        environment = os.environ | {
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
            "JAX_PLATFORMS": "cpu",
            **(settings or {}),
        }
        shared = [f"--coordinator=localhost:{port}", f"--processes={hosts}"] if hosts > 1 else []
        self.processes, self._printed = [], []
        for i in range(hosts):
            printed = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed after the processes end
            own = [*shared, f"--process={i}"] if hosts > 1 else []
            command = [sys.executable, *(argument.replace("{host}", str(i)) for argument in arguments), *own]
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=printed, stderr=subprocess.STDOUT)
            self.processes.append(process)
            self._printed.append(printed)

    def wait(self, timeout: float = 300) -> list[Ended]:
        """Waits for all processes and returns their results. Kills those that run after `timeout` seconds."""
        try:
            for process in self.processes:
                process.wait(timeout)
        except subprocess.TimeoutExpired:
            printed = "\n".join(f"--- host {i}\n{self._read(i)}" for i in range(len(self.processes)))
            raise AssertionError(f"a host did not end within {timeout} s\n{printed}") from None
        finally:
            for process in self.processes:
                process.kill()
                process.wait()
        ended = [Ended(process.returncode, self._read(i)) for i, process in enumerate(self.processes)]
        for file in self._printed:
            file.close()
        return ended

    def _read(self, host: int) -> str:
        self._printed[host].seek(0)
        return self._printed[host].read()
