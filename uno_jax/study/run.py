"""Runs the stages of a study that are chosen, and writes its report."""

from __future__ import annotations

import fnmatch
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import rich.console
from absl import flags

from uno_jax.config import ConfigError
from uno_jax.process.errors import exit_with_message
from uno_jax.process.files import check_folder
from uno_jax.process.output import going_on_without_output
from uno_jax.process.start_up import set_up_jax
from uno_jax.study.plan import STAGES, Study, units
from uno_jax.study.processes import run_beside
from uno_jax.study.progress import progress_table
from uno_jax.study.report import write_report
from uno_jax.study.summary import summary_table
from uno_jax.study.unit import Unit, changed_message, changed_units, discard
from uno_jax.study.version import about_code
from uno_jax.study.work import work

REPORT = "report"
ALL_STAGES = (*STAGES, REPORT)
STOPPED = 128 + 15
"""Exit status of a process that a signal stopped."""


@dataclass(frozen=True)
class Choice:
    """What to do of a study."""

    stages: tuple[str, ...] = ALL_STAGES
    only: tuple[str, ...] = ()
    """Patterns of names of units; empty: all of the stages, and the report."""
    processes: int = 1
    discard: bool = False
    """Whether to delete the units that a change of the config invalidates."""


def set_up() -> None:
    """Sets up a process that works on units. Must be called before the first compilation."""
    set_up_jax()
    flags.FLAGS.mark_as_parsed()  # grain reads them


def run_study(study: Study, choice: Choice, console: rich.console.Console) -> bool:
    """Does the chosen units that are not done yet, and writes the report if it is chosen.

    Args:
      study: the study.
      choice: what to do of it.
      console: for a table of what is done and left, and a line for each unit.

    Returns:
      True if all is done, False if a signal interrupted it.

    Raises:
      OSError: the folder cannot be written.
      ConfigError: the choice fits nothing, or the config differs from that of units of the study.
      MissingUnits: a chosen unit needs one that is neither done nor chosen.
    """
    check_folder(study.folder)
    study.folder.mkdir(parents=True, exist_ok=True)
    everything = units(study)
    chosen = chosen_units(everything, choice)
    changed = changed_units(everything, study.done)
    if changed and not choice.discard:
        raise ConfigError(changed_message(changed))
    discard(list(changed), study.done)
    finished = True
    if any(not study.done.has(unit.name) for unit in chosen):
        console.print(progress_table(everything, study.done))
        if choice.processes > 1:
            names = [unit.name for unit in chosen]
            finished = run_beside(_work_beside, (study, names), choice.processes)
        else:
            finished = work(chosen, study.done, console, about_code())
        console.print(progress_table(everything, study.done))
    if finished and REPORT in choice.stages and not choice.only:
        report = write_report(study)
        if (table := summary_table(study)) is not None:
            console.print(table)
        console.print(f"report: {report}", markup=False, highlight=False)
    return finished


def print_units(study: Study, choice: Choice, console: rich.console.Console) -> None:
    """Prints the chosen units, and the table of what is done and left."""
    everything = units(study)
    for unit in chosen_units(everything, choice):
        console.print(f"{'done' if study.done.has(unit.name) else 'left'}  {unit.name}", markup=False, highlight=False)
    console.print(progress_table(everything, study.done))


def chosen_units(everything: Sequence[Unit], choice: Choice) -> list[Unit]:
    """Returns the units of the chosen stages whose name fits one of the patterns.

    Raises:
      ConfigError: no stage is given, there is no such stage, or a pattern fits no unit.
    """
    if not choice.stages:
        raise ConfigError(f"--stages names no stage; expected some of {', '.join(ALL_STAGES)}")
    unknown = [stage for stage in choice.stages if stage not in ALL_STAGES]
    if unknown:
        raise ConfigError(f"--stages: there is no stage {', '.join(unknown)}; expected {', '.join(ALL_STAGES)}")
    listed = [unit for unit in everything if unit.stage in choice.stages]
    for pattern in choice.only:
        if not any(fnmatch.fnmatch(unit.name, pattern) for unit in listed):
            stages = ", ".join(choice.stages)
            raise ConfigError(f"--only={pattern} fits no unit of the stages {stages}; --list prints their names")
    if not choice.only:
        return listed
    return [unit for unit in listed if any(fnmatch.fnmatch(unit.name, pattern) for pattern in choice.only)]


def _work_beside(study: Study, names: Sequence[str]) -> None:
    """Works on units in a process of its own.

    Raises:
      SystemExit: status 1 for a user error, STOPPED if a signal interrupted the work.
    """
    set_up()
    with going_on_without_output(), exit_with_message():
        chosen = [unit for unit in units(study) if unit.name in names]
        finished = work(chosen, study.done, rich.console.Console(soft_wrap=True), about_code())
    if not finished:
        sys.exit(STOPPED)
