"""Runs the launch scripts with stand-ins for the cloud tools."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.helpers.paths import ROOT

LAUNCH = ROOT / "launch"
TRAIN = ("--", "--config=configs/bagel_7b_uno.py", "--workdir=/mnt/bucket/runs/uno")
TPU = ("--project=p", "--zone=us-west4-a", "--bucket=b", "--slice=v5e-16")
GKE = (*TPU, "--cluster=c", "--image=us-docker.pkg.dev/p/r/uno:1")
CLOUD_TOOLS = ("gcloud", "kubectl", "docker", "xpk")


def call(
    *command: object, cwd: Path = ROOT, path: Path | None = None, check: int | None = 0
) -> subprocess.CompletedProcess:
    """Runs a command, requires the expected exit status, and returns the result."""
    environment = os.environ | {"POLL_SECONDS": "0"}
    if path is not None:
        environment["PATH"] = f"{path}:{environment['PATH']}"
    done = subprocess.run(
        [str(c) for c in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert check is None or done.returncode == check, done.stderr
    return done


def failing_tools(folder: Path, names: Sequence[str] = CLOUD_TOOLS) -> Path:
    """Fills the folder with tools that fail, so that a dry run that calls one is noticed. Returns the folder."""
    for name in names:
        (folder / name).write_text("#!/bin/sh\necho called: $0 $* >&2\nexit 99\n")
        (folder / name).chmod(0o755)
    return folder


def printed(script: str, *arguments: str, path: Path) -> list[str]:
    """Returns the commands that a dry run prints, without their flags."""
    done = call(LAUNCH / script, arguments[0], "--dry-run", *arguments[1:], path=path)
    assert "called" not in done.stderr
    commands = [line[2:] for line in done.stdout.splitlines() if line.startswith("+ ")]
    return [" ".join(word for word in command.split() if not word.startswith("-")) for command in commands]
