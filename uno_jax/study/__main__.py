"""Runs a study: `python -m uno_jax.study --config=configs/study/scenes.py --workdir=DIR`; see docs/study.md.

All stages are run, and what is done is kept: data, base, reading, tune, runs, scores, report. The same command
continues an interrupted study.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import rich.console
from absl import flags

from uno_jax.config import dictionary_fields, from_config_dict
from uno_jax.process.errors import exit_with_message
from uno_jax.process.flags import define_config, define_path, parse_flags, section_of
from uno_jax.process.output import going_on_without_output

try:
    from uno_jax.study.config import StudyConfig, check_study
    from uno_jax.study.plan import Study
    from uno_jax.study.run import ALL_STAGES, STOPPED, Choice, print_units, run_study, set_up
except ImportError as error:
    sys.exit(f"study needs {error.name}. Install its extras: pip install '.[data,study]' (docs/install.md)")


def main(arguments: Sequence[str]) -> None:
    """Runs the study of the command line.

    Raises:
      SystemExit: status 1 for a user error, 2 for an invalid command line, 143 if a signal interrupted the study.
    """
    options = flags.FlagValues()
    _define(options, arguments)
    parse_flags(options, arguments, command="study", about=__doc__, required=("config", "workdir"))
    set_up()
    console, finished = rich.console.Console(soft_wrap=True), True
    choice = Choice(tuple(options.stages), tuple(options.only), options.processes, options.discard)
    with going_on_without_output(), exit_with_message():
        config = from_config_dict(options.config, StudyConfig)
        check_study(config)
        study = Study(config, Path(options.workdir))
        if options.list:
            print_units(study, choice, console)
        else:
            finished = run_study(study, choice, console)
    if not finished:
        sys.exit(STOPPED)


def _define(options: flags.FlagValues, arguments: Sequence[str]) -> None:
    define_config(options, arguments, dictionary_fields(StudyConfig))
    define_path(options, "workdir", None, "directory of the study; one in it is continued", "study")
    place = section_of(options, "study")
    note = f"stages to run, with commas between them: {', '.join(ALL_STAGES)}"
    flags.DEFINE_list("stages", list(ALL_STAGES), note, **place)
    note = "units to run, with * for any text: runs/uno/*; may be given several times; default: all of the stages"
    flags.DEFINE_multi_string("only", [], note, **place)
    flags.DEFINE_integer("processes", 1, "processes that share the units, and the cores", lower_bound=1, **place)
    flags.DEFINE_boolean("discard", False, "delete the units that a change of the config invalidates", **place)
    flags.DEFINE_boolean("list", False, "print the units and what is done, and run nothing", **place)


if __name__ == "__main__":
    main(sys.argv[1:])
