"""Trains a model: `python -m uno_jax.train --config=configs/openmoji_uno.py --workdir=DIR --config.any.field=value`."""

from __future__ import annotations

import faulthandler
import os
import sys
from collections.abc import Sequence

from absl import flags, logging

from uno_jax.config import from_config_dict
from uno_jax.parallel.flags import define_hosts, joined_hosts
from uno_jax.process.compilation_cache import keep_compiled_programs
from uno_jax.process.errors import exit_with_message
from uno_jax.process.flags import define_config, parse_flags, section_of
from uno_jax.process.memory import keep_freed_memory
from uno_jax.run.config import RunConfig
from uno_jax.run.pictures import make_generate_pictures
from uno_jax.run.run import run


def main(arguments: Sequence[str]) -> None:
    """Runs, and says in one message what is wrong with the config if something is.

    Raises:
      SystemExit: something is wrong (status 1, of the command line 2), or the run was told to stop (143).
    """
    options = flags.FlagValues()
    define_config(options, arguments)
    note = "where checkpoints, metrics and pictures go; a run that is there is resumed"
    flags.DEFINE_string("workdir", None, note, **section_of(options, "run"))
    define_hosts(options)
    parse_flags(options, arguments, command="train", about=__doc__, required=("config", "workdir"))
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        keep_freed_memory()
    faulthandler.enable(2)  # a crash of native code prints on stderr where Python was
    logging.use_absl_handler()  # lines of a host's log begin with their time
    logging.set_verbosity(logging.WARNING)  # Orbax tells of every file
    keep_compiled_programs()
    with exit_with_message(), joined_hosts(options):
        config = from_config_dict(options.config, RunConfig)
        finished = run(config, options.workdir, make_generate_pictures=make_generate_pictures)
    if not finished:
        sys.exit(128 + 15)  # as a process that SIGTERM ended, so that what follows in a script does not run


if __name__ == "__main__":
    main(sys.argv[1:])
