"""Units are done once and kept, and never mixed with those of another config."""

from __future__ import annotations

import io
import json
import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import rich.console

from uno_jax.study.progress import expected_seconds, progress_table
from uno_jax.study.unit import ChangedUnit, Done, Unit, changed_message, changed_units, claimed, differences, discard
from uno_jax.study.work import MissingUnits, work


def unit(name: str, value: Any = 0, needs: tuple[str, ...] = (), work: Any = None, **fields: Any) -> Unit:
    """A unit whose result is its value, plus those of its needs."""

    def add(folder: Path, done: Done) -> Any:
        with (folder.parent / "calls.txt").open("a") as file:
            file.write(f"{name}\n")
        return value + sum(done.result(need) for need in needs)

    return Unit(
        name=name,
        stage=fields.get("stage", "stage"),
        kind=fields.get("kind", "kind"),
        amount=fields.get("amount", 1),
        needs=needs,
        inputs=fields.get("inputs", needs),
        determined_by=lambda done: {"value": value},
        work=work or add,
    )


def do(units: list[Unit], folder: Path) -> bool:
    return work(units, Done(folder), rich.console.Console(file=io.StringIO()), {"commit": "abc"})


def calls(folder: Path) -> list[str]:
    return (folder / "calls.txt").read_text().split()


def test_a_unit_reads_the_results_of_those_that_it_needs(tmp_path):
    assert do([unit("a", 1), unit("b", 2), unit("c", 3, needs=("a", "b"))], tmp_path)
    assert Done(tmp_path).result("c") == 6


def test_a_finished_unit_is_kept(tmp_path):
    units = [unit("a", 1), unit("b", 2)]
    do(units[:1], tmp_path)
    do(units, tmp_path)
    assert calls(tmp_path) == ["a", "b"]


def test_a_result_says_what_made_it(tmp_path):
    do([unit("a", 1)], tmp_path)
    assert json.loads((tmp_path / "a" / "result.json").read_text())["commit"] == "abc"


def test_an_interrupted_unit_stops_the_work_and_is_done_the_next_time(tmp_path):
    interrupted = unit("a", 1, work=lambda folder, done: None)
    assert not do([interrupted, unit("b", 2)], tmp_path)
    assert not Done(tmp_path).has("b")
    assert do([unit("a", 1), unit("b", 2)], tmp_path)


def test_a_unit_that_was_begun_with_another_config_is_refused(tmp_path):
    do([unit("a", 1, work=lambda folder, done: None)], tmp_path)
    with pytest.raises(ChangedUnit, match="a: value: 1 -> 2"):
        do([unit("a", 2)], tmp_path)


def test_a_changed_unit_invalidates_those_that_follow_from_it_and_no_others(tmp_path):
    def units(value: int) -> list[Unit]:
        return [unit("a", value), unit("b", 1), unit("c", 1, needs=("a",)), unit("d", 1, needs=("b",))]

    do(units(1), tmp_path)
    changed = changed_units(units(2), Done(tmp_path))
    assert changed == {"a": ["value: 1 -> 2"], "c": ["follows from a"]}
    assert "2 units" in changed_message(changed)
    discard(list(changed), Done(tmp_path))
    do(units(2), tmp_path)
    assert calls(tmp_path) == ["a", "b", "c", "d", "a", "c"]


def test_what_only_has_to_come_first_does_not_invalidate(tmp_path):
    def units(value: int) -> list[Unit]:
        return [unit("a", value), unit("b", 1, needs=("a",), inputs=())]

    do(units(1), tmp_path)
    assert list(changed_units(units(2), Done(tmp_path))) == ["a"]


def test_fields_that_are_new_or_gone_are_named():
    assert differences({"x": {"a": 1, "b": 2}}, {"x": {"b": 2, "c": {}}}) == [
        "x.a: 1 -> '(default)'",
        "x.c: '(default)' -> {}",
    ]


def test_a_unit_whose_needs_are_not_chosen_is_refused(tmp_path):
    with pytest.raises(MissingUnits, match=r"b needs a, which is neither done nor chosen"):
        do([unit("b", needs=("a",))], tmp_path)


def _work_in_process(folder: str) -> None:
    do([unit(name, 1) for name in "abcdefgh"], Path(folder))


def test_processes_share_the_units(tmp_path):
    new = multiprocessing.get_context("spawn")
    processes = [new.Process(target=_work_in_process, args=(str(tmp_path),)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert sorted(calls(tmp_path)) == list("abcdefgh")


def test_a_claim_ends_with_its_block(tmp_path):
    with claimed(tmp_path / "a") as first, claimed(tmp_path / "a") as second:
        assert (first, second) == (True, False)
    with claimed(tmp_path / "a") as third:
        assert third


def test_the_time_of_a_unit_is_expected_from_those_of_its_kind(tmp_path):
    units = [unit("a", amount=10), unit("b", amount=30), unit("c", amount=5, kind="other")]
    do(units[:1], tmp_path)
    done = Done(tmp_path)
    assert expected_seconds(units[1], units, done) == pytest.approx(3 * done.seconds("a"))
    assert expected_seconds(units[2], units, done) is None


def test_the_table_counts_what_is_done_and_what_is_left(tmp_path):
    units = [unit("a"), unit("b"), unit("c", stage="next", kind="other")]
    do(units[:1], tmp_path)
    console = rich.console.Console(file=io.StringIO(), width=100)
    console.print(progress_table(units, Done(tmp_path)))
    rows = [line.split("│") for line in console.file.getvalue().splitlines() if "│" in line]
    cells = {row[0].strip() or row[1].strip(): [cell.strip() for cell in row[2:4]] for row in rows}
    assert cells == {"stage": ["1", "1"], "next": ["0", "1"], "all": ["1", "2"]}
