"""Metrics of a run at Weights & Biases, through its own library, which is an extra."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from uno_jax.config import ConfigError
from uno_jax.process.files import atomic_file

ID_FILE = "wandb_id.txt"
"""File of the workdir with the id of the run at Weights & Biases, under which a resumed run goes on."""


def check_wandb(project: str) -> None:
    """Requires the library if a project is given.

    Raises:
      ConfigError: the library is missing.
    """
    spec = find_spec("wandb") if project else None
    if project and (spec is None or spec.origin is None):  # without origin: a folder that is called wandb
        raise ConfigError(
            f"config.wandb is {project!r}, but the library wandb is not installed: pip install '.[wandb]', or leave "
            "config.wandb empty"
        )


class WandbRun:
    """A run at Weights & Biases. `WANDB_MODE=offline` keeps it in the folder `wandb` of the workdir."""

    def __init__(self, project: str, workdir: Path, config: Mapping[str, Any], resume_step: int):
        """Opens a run of `project` that is named like the workdir, or goes on with that of the workdir.

        Raises:
          ConfigError: the library refuses, for example because nobody is logged in.
        """
        import wandb

        file = workdir / ID_FILE
        run_id = file.read_text().strip() if resume_step and file.is_file() else ""
        if not run_id:
            run_id = secrets.token_hex(8)
            with atomic_file(file) as temporary:
                temporary.write_text(run_id)
        self._failure: type[Exception] = wandb.Error
        try:
            self._run = wandb.init(
                project=project,
                id=run_id,
                resume="allow",
                name=workdir.resolve().name,
                dir=workdir,
                config=dict(config),
                settings=wandb.Settings(console="off", silent=True),
            )
        except wandb.Error as error:
            reason = " ".join(str(error).split()).rstrip(".")
            raise ConfigError(
                f"config.wandb is {project!r}, but the run cannot be opened ({reason}): run `wandb login`, or set the "
                "environment variable WANDB_MODE=offline"
            ) from error

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Adds the scalars of a step. Steps before the last one written, as after a kill, are dropped there.

        Raises:
          OSError: they cannot be written.
        """
        try:
            self._run.log(dict(scalars), step=step)
        except self._failure as error:
            raise OSError(str(error)) from error

    def close(self) -> None:
        """Waits until all is written or sent. A run that an error ends is marked as failed."""
        try:
            self._run.finish(exit_code=int(sys.exc_info()[0] is not None))
        except self._failure as error:
            raise OSError(str(error)) from error
