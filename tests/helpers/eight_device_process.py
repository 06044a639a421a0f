"""Runs a process with eight CPU devices, because JAX fixes the number of devices when it starts."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.helpers.paths import ROOT


def run_with_eight_devices(*arguments: str) -> str:
    """Runs `python ARGUMENTS` in the project's root and returns its output. Raises AssertionError if it fails."""
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    result = subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout
