"""Trains a model: `python -m uno_jax.train --config=configs/openmoji_uno.py --workdir=DIR --config.any.field=value`."""

from __future__ import annotations

import faulthandler
import sys
from collections.abc import Sequence

from absl import flags, logging

from uno_jax.config import dictionary_fields, from_config_dict
from uno_jax.parallel.flags import define_hosts, joined_hosts
from uno_jax.process.errors import exit_with_message
from uno_jax.process.flags import define_config, define_path, parse_flags, section_of
from uno_jax.process.output import going_on_without_output
from uno_jax.process.signals import exit_status
from uno_jax.process.start_up import set_up_jax
from uno_jax.run.config import RunConfig
from uno_jax.run.pictures import make_generate_pictures
from uno_jax.run.run import run


def main(arguments: Sequence[str]) -> None:
    """Trains as the command line says.

    Raises:
      SystemExit: status 1 for a user error, 2 for an invalid command line, 128 + N if signal N stopped the run.
    """
    options = flags.FlagValues()
    define_config(options, arguments, dictionary_fields(RunConfig))
    about = "directory for checkpoints, metrics and pictures; a run in it is resumed"
    define_path(options, "workdir", None, about, "run")
    about = "resume from the checkpoint of this step; later ones are renamed (default: the newest that is whole)"
    flags.DEFINE_integer("resume_step", None, about, lower_bound=0, **section_of(options, "run"))
    about = "resume although config fields differ that change what the run computes"
    flags.DEFINE_boolean("accept_changes", False, about, **section_of(options, "run"))
    define_hosts(options)
    parse_flags(options, arguments, command="train", about=__doc__, required=("config", "workdir"))
    set_up_jax()
    faulthandler.enable(2)  # crashes in native code print the Python stack to stderr
    logging.use_absl_handler()  # prefixes log lines with the time
    with going_on_without_output(), exit_with_message(), joined_hosts(options):
        config = from_config_dict(options.config, RunConfig)
        finished = run(
            config,
            options.workdir,
            make_generate_pictures=make_generate_pictures,
            resume_step=options.resume_step,
            accept_changes=options.accept_changes,
        )
    if not finished:
        sys.exit(exit_status())  # so that a script stops here, and a launcher starts the run again


if __name__ == "__main__":
    main(sys.argv[1:])
