"""What of a study is done and what is left, with the time taken and the time expected."""

from __future__ import annotations

from collections.abc import Sequence

import rich.table

from uno_jax.study.unit import Done, Unit


def expected_seconds(unit: Unit, units: Sequence[Unit], done: Done) -> float | None:
    """Returns how long a unit should take by the units of its kind that are done; None if there are none."""
    alike = [other for other in units if other.kind == unit.kind and done.has(other.name)]
    amount = sum(other.amount for other in alike)
    return sum(done.seconds(other.name) for other in alike) / amount * unit.amount if amount else None


def progress_table(units: Sequence[Unit], done: Done) -> rich.table.Table:
    """Makes a table with a row per stage and kind of unit. Times are those of one unit after another."""
    table = rich.table.Table(show_edge=False, pad_edge=False)
    for title in ("stage", "units"):
        table.add_column(title)
    for title in ("done", "left", "time taken", "time left"):
        table.add_column(title, justify="right")
    rows = dict.fromkeys((unit.stage, unit.kind) for unit in units)
    taken_in_all, left_in_all, unknown_in_all = 0.0, 0.0, False
    before = ""
    for stage, kind in rows:
        own = [unit for unit in units if (unit.stage, unit.kind) == (stage, kind)]
        finished = [unit for unit in own if done.has(unit.name)]
        taken = sum(done.seconds(unit.name) for unit in finished)
        expected = [expected_seconds(unit, units, done) for unit in own if unit not in finished]
        known = [seconds for seconds in expected if seconds is not None]
        unknown = len(known) < len(expected)
        table.add_row(
            stage if stage != before else "",
            kind,
            str(len(finished)),
            str(len(expected)),
            duration(taken) if finished else "",
            "not known yet" if unknown else duration(sum(known)) if expected else "",
        )
        before = stage
        taken_in_all, left_in_all = taken_in_all + taken, left_in_all + sum(known)
        unknown_in_all |= unknown
    finished_in_all = sum(done.has(unit.name) for unit in units)
    table.add_section()
    table.add_row(
        "all",
        "",
        str(finished_in_all),
        str(len(units) - finished_in_all),
        duration(taken_in_all),
        f"{'more than ' if unknown_in_all else ''}{duration(left_in_all)}",
    )
    return table


def duration(seconds: float) -> str:
    """Formats a time, such as 0:42, 12:03 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
