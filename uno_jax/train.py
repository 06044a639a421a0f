"""Trains a model: `python -m uno_jax.train --config=configs/openmoji_uno.py --workdir=DIR --config.any.field=value`."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence

from absl import app, flags, logging
from ml_collections import config_flags

from uno_jax.attention.kernel import TooManyBlocks
from uno_jax.config import ConfigError, from_config_dict
from uno_jax.parallel.hosts import failing_together, join_hosts
from uno_jax.process.errors import CheckpointError
from uno_jax.process.flags import flags_parser
from uno_jax.process.memory import keep_freed_memory
from uno_jax.run.config import RunConfig
from uno_jax.run.pictures import make_generate_pictures
from uno_jax.run.run import run

_CONFIG = config_flags.DEFINE_config_file("config", None, "The config file; --config.any.field=value overrides it.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Where checkpoints, metrics and pictures go; a run there is resumed.")
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "host:port of process 0, where several hosts do not find each other (on a Cloud TPU they do)."
)
_PROCESSES = flags.DEFINE_integer("processes", None, "With --coordinator: how many there are.")
_PROCESS = flags.DEFINE_integer("process", None, "With --coordinator: which this is, from 0.")


def main(arguments: Sequence[str]) -> None:
    """Runs, and says in one message what is wrong with the config if something is."""
    if len(arguments) > 1:
        raise app.UsageError(f"unknown arguments: {' '.join(arguments[1:])}")
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        keep_freed_memory()
    logging.set_verbosity(logging.WARNING)  # Orbax tells of every file
    with _one_message():
        join_hosts(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
    with failing_together(), _one_message():
        config = from_config_dict(_CONFIG.value, RunConfig)
        finished = run(config, str(_WORKDIR.value), make_generate_pictures=make_generate_pictures)
    if not finished:
        sys.exit(128 + 15)  # as a process that SIGTERM ended, so that what follows in a script does not run


@contextlib.contextmanager
def _one_message() -> Iterator[None]:
    """Errors that people can act on end the program with what they say, and without a traceback."""
    try:
        yield
    except (ConfigError, CheckpointError, FloatingPointError, FileNotFoundError, TooManyBlocks) as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main, flags_parser=flags_parser(__doc__))
