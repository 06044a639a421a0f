"""Does the units of a study, one after another, in this process or beside others that do the same."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import rich.console

from uno_jax.process.errors import UserError
from uno_jax.process.signals import stop_event
from uno_jax.study.progress import duration, expected_seconds
from uno_jax.study.unit import Done, Unit, begin, claimed, finish

_POLL_SECONDS = 1.0


class MissingUnits(UserError):
    """Raised if chosen units need others that are neither done nor chosen."""


def work(chosen: Sequence[Unit], done: Done, console: rich.console.Console, about: Mapping[str, Any]) -> bool:
    """Does the chosen units that are not done yet, in their order, and keeps their results.

    Several processes may work on one study: each takes a unit that no other has, and waits for those that it needs.

    Args:
      chosen: units, each after those that it needs.
      done: the results so far.
      console: for a line at the begin and the end of each unit.
      about: kept with every result, to say what made it.

    Returns:
      True if all chosen units are done, False if a signal interrupted the work.

    Raises:
      MissingUnits: a chosen unit needs one that is neither done nor chosen.
      ChangedUnit: a unit was begun with another config.
    """
    _check_needs(chosen, done)
    with stop_event() as stop:
        while left := [unit for unit in chosen if not done.has(unit.name)]:
            ready = [unit for unit in left if all(done.has(name) for name in unit.needs)]
            if stop.is_set():
                return False
            taken = None
            for unit in ready:
                with claimed(done.folder / unit.name) as mine:
                    if not mine or done.has(unit.name):  # finished by another process since it was listed
                        continue
                    taken = unit
                    if not _do(unit, chosen, done, console, about):
                        return False
                    break
            if taken is None:
                stop.wait(_POLL_SECONDS)  # the units that are left are, or wait for, those of other processes
    return True


def _do(unit: Unit, units: Sequence[Unit], done: Done, console: rich.console.Console, about: Mapping[str, Any]) -> bool:
    folder = begin(unit, done)
    expected = expected_seconds(unit, units, done)
    note = "" if expected is None else f", about {duration(expected)}"
    console.print(f"{unit.name}: begun{note}", markup=False, highlight=False)
    start = time.monotonic()
    result = unit.work(folder, done)
    if result is None:
        console.print(f"{unit.name}: interrupted. The same command continues it.", markup=False, highlight=False)
        return False
    seconds = time.monotonic() - start
    finish(folder, result, seconds, about)
    console.print(f"{unit.name}: done in {duration(seconds)}", markup=False, highlight=False)
    return True


def _check_needs(chosen: Sequence[Unit], done: Done) -> None:
    names = {unit.name for unit in chosen}
    missing = {
        unit.name: absent
        for unit in chosen
        if not done.has(unit.name) and (absent := [n for n in unit.needs if n not in names and not done.has(n)])
    }
    if missing:
        name, absent = next(iter(missing.items()))
        others = f" (and {len(absent) - 1} others)" if len(absent) > 1 else ""
        raise MissingUnits(
            f"{name} needs {absent[0]}{others}, which is neither done nor chosen: run the stages before it first, "
            "or choose them too by --stages and --only"
        )
