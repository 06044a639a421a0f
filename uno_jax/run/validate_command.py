"""The command `prepare_data validate`: reads a dataset as a run would."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import flags, logging
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from uno_jax.config import dictionary_fields, from_config_dict
from uno_jax.process.errors import UserError, exit_with_message
from uno_jax.process.files import check_folder, write_json
from uno_jax.process.flags import define_config, define_path, parse_flags, section_of
from uno_jax.process.signals import exit_on_signals
from uno_jax.run.config import RunConfig
from uno_jax.run.validation import validate
from uno_jax.run.validation_report import as_json, sentences, tables


def main(arguments: Sequence[str]) -> None:
    """Reads the dataset that a config names, and prints what it holds.

    Raises:
      SystemExit: with status 1 if something would break a run, with status 2 for an invalid command line.
    """
    options = flags.FlagValues()
    define_config(options, arguments, dictionary_fields(RunConfig))
    note = "propose the lengths of the regions of a row"
    flags.DEFINE_boolean("fit", False, note, **section_of(options, "report"))
    define_path(options, "report", "validation.json", "JSON file to write", "report")
    about = "Reads a dataset as a run would, and reports what the run would leave out or break on (docs/data.md)."
    parse_flags(options, arguments, command="prepare_data validate", about=about, required=("config",))
    logging.set_verbosity(logging.WARNING)
    console, report = Console(soft_wrap=True, emoji=False), Path(options.report)
    columns = (TextColumn("{task.description:18}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with exit_on_signals(), exit_with_message():
        check_folder(report.parent)
        if report.is_dir():
            raise UserError(f"--report={report} is a folder. Give a file")
        with Progress(*columns, console=console) as progress:

            def begin(stage: str, total: int) -> Callable[[], None]:
                task = progress.add_task(stage, total=total)
                return lambda: progress.advance(task)

            found = validate(from_config_dict(options.config, RunConfig), begin, fit=options.fit)
        for table in tables(found):
            console.print(table, "")
        for sentence in sentences(found):
            console.print(sentence, markup=False, highlight=False)
        write_json(report, as_json(found))
        console.print(f"report: {report}", markup=False, highlight=False)
    if found.problems:
        sys.exit(1)
