"""Runs the program of a scorer in the environment that has its package."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from uno_jax.evaluation.benchmark import BenchmarkError
from uno_jax.evaluation.scorers import program
from uno_jax.evaluation.scorers.program import SCORERS, Job
from uno_jax.process.files import write_json
from uno_jax.process.json_reader import JsonError, read_json_object


def run_program(name: str, python: Path, job: Job, log: Path) -> dict[str, Any]:
    """Runs a scorer, and returns its result.

    Args:
      name: a key of `SCORERS`.
      python: the Python of an environment that has its package.
      job: what to score.
      log: file that receives what the scorer prints.

    Raises:
      BenchmarkError: it cannot be run, or fails. The message has the last line that it printed.
    """
    package = SCORERS[name].package
    with TemporaryDirectory() as folder:
        work, result = Path(folder) / "job.json", Path(folder) / "result.json"
        write_json(work, job._asdict())
        command = [str(python), str(program.__file__), name, str(work), str(result)]
        # Without it, Python would look for the scorer's imports among the files beside the program first.
        environment = os.environ | {"PYTHONSAFEPATH": "1"}
        try:
            with log.open("wb") as printed:
                ended = subprocess.run(
                    command, stdin=subprocess.DEVNULL, stdout=printed, stderr=subprocess.STDOUT, env=environment
                )
        except OSError as error:
            raise BenchmarkError(f"--python is {python}, which cannot be run ({error.strerror or error})") from error
        if ended.returncode:
            raise BenchmarkError(
                f"{python} cannot score with {package} ({_reason(log, ended.returncode)}); install it there "
                f"(`{python} -m pip install {package}`), or see {log}"
            )
        try:
            return read_json_object(result)
        except (OSError, JsonError) as error:
            raise BenchmarkError(f"{package} has left no result ({error}); see {log}") from error


def _reason(log: Path, status: int) -> str:
    """Returns the last line that a failed process has printed."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    killed = f"ended by signal {-status}" if status < 0 else ""
    return killed or (lines[-1][:300] if lines else f"status {status}")
