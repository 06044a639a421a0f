"""A unit of a study: one run or one scoring, with a folder of its own, which is done once and then kept.

The folder holds `unit.json` from the moment when work begins: everything that determines the result. It holds
`result.json` when the work is done. So an interrupted unit is known to be unfinished, and a unit that was begun or done
with another config is never mixed with those of this one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from uno_jax.config import json_file
from uno_jax.process.errors import UserError
from uno_jax.process.files import atomic_file
from uno_jax.process.json_reader import read_json_object
from uno_jax.process.lock import LockError, locked

Json = Any


class ChangedUnit(UserError):
    """Raised for a unit that was begun with another config. The message names what differs."""


@dataclass(frozen=True)
class Unit:
    """One piece of work."""

    name: str
    """Path of the folder below the study's, such as `runs/uno/b0s1`. A unit inside another's folder needs that one."""
    stage: str
    kind: str
    """Units of one kind take time in proportion to their amount."""
    amount: float
    """Training steps, or records to score."""
    needs: tuple[str, ...]
    """Names of the units that must be done before."""
    determined_by: Callable[[Done], Mapping[str, Json]]
    """Returns what determines the result apart from `inputs`, as JSON. It may read the results of `needs`."""
    work: Callable[[Path, Done], Json | None]
    """Does the work in the unit's folder and returns the result, or None if a signal interrupted it."""
    inputs: tuple[str, ...] = ()
    """Units of `needs` whose contents the work reads. If they change, this unit does."""


class Done(NamedTuple):
    """Read access to the folders of a study."""

    folder: Path

    def has(self, name: str) -> bool:
        """Whether a unit is done."""
        return (self.folder / name / "result.json").is_file()

    def result(self, name: str) -> Json:
        """Returns the result of a unit that is done."""
        return self._read(name, "result.json")["result"]

    def seconds(self, name: str) -> float:
        """Returns how long the work of a unit took that is done."""
        return float(self._read(name, "result.json")["seconds"])

    def begun(self, name: str) -> Mapping[str, Json] | None:
        """Returns what determined a unit when it was begun; None if it was not."""
        return self._read(name, "unit.json") if (self.folder / name / "unit.json").is_file() else None

    def _read(self, name: str, file: str) -> dict[str, Json]:
        return read_json_object(self.folder / name / file)


def specification(unit: Unit, done: Done) -> dict[str, Json]:
    """Returns everything that determines a unit's result: `determined_by`, and the fingerprints of its inputs.

    All `needs` of the unit must be done.
    """
    inputs = {name: fingerprint(done.begun(name) or {}) for name in unit.inputs}
    written = {"determined_by": dict(unit.determined_by(done)), "inputs": inputs}
    as_read: dict[str, Any] = json.loads(json.dumps(written))  # tuples become lists
    return as_read


def fingerprint(specification: Mapping[str, Json]) -> str:
    """Returns a hash of a specification."""
    return hashlib.sha256(json.dumps(specification, sort_keys=True).encode()).hexdigest()[:16]


def begin(unit: Unit, done: Done) -> Path:
    """Returns the folder of a unit, after writing what determines it.

    Raises:
      ChangedUnit: the unit was begun with another config.
    """
    now, before = specification(unit, done), done.begun(unit.name)
    if before is not None and before != now:
        raise ChangedUnit(changed_message({unit.name: differences(before, now)}))
    folder = done.folder / unit.name
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_file(folder / "unit.json") as temporary:
        temporary.write_bytes(json_file(now))
    return folder


def finish(folder: Path, result: Json, seconds: float, about: Mapping[str, Json]) -> None:
    """Writes the result of a unit, which makes it done. `about` says what wrote it."""
    with atomic_file(folder / "result.json") as temporary:
        temporary.write_bytes(json_file({"result": result, "seconds": round(seconds, 2), **about}))


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Yields whether this process may work in a unit's folder. The claim ends with the process, however it ends."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(folder))
        except LockError:
            yield False
            return
        yield True


def changed_units(units: Sequence[Unit], done: Done) -> dict[str, list[str]]:
    """Returns what differs for each unit that was begun with another config, by name.

    A unit that follows from a changed one is listed as well. One whose needs are not done yet is judged when they are.
    """
    changed: dict[str, list[str]] = {}
    for unit in units:
        before = done.begun(unit.name)
        if before is None:
            continue
        if follows := [name for name in unit.inputs if name in changed]:
            changed[unit.name] = [f"follows from {name}" for name in follows]
        elif all(done.has(name) for name in unit.needs) and (lines := differences(before, specification(unit, done))):
            changed[unit.name] = lines
    return changed


def differences(before: Mapping[str, Json], now: Mapping[str, Json]) -> list[str]:
    """Returns a line for each value that differs between two specifications."""
    old, new = (dict(flat(value)) for value in (before, now))
    missing = "(default)"
    return [
        f"{name.removeprefix('determined_by.')}: {old.get(name, missing)!r} -> {new.get(name, missing)!r}"
        for name in sorted(old.keys() | new.keys())
        if name not in old or name not in new or old[name] != new[name]
    ]


def changed_message(changed: Mapping[str, Sequence[str]]) -> str:
    """Returns the message that names the units of another config, and says what to do."""
    roots = {name: lines for name, lines in changed.items() if not lines[0].startswith("follows from")}
    lines = [f"{name}: {'; '.join(found[:5])}" for name, found in roots.items()]
    shown = "".join(f"\n  {line}" for line in lines[:20])
    more = f"\n  and {len(changed) - min(len(lines), 20)} others" if len(changed) > min(len(lines), 20) else ""
    return (
        f"the config differs from the one that {len(changed)} units of this workdir were begun with:{shown}{more}\n"
        "Undo the change, give another --workdir, or pass --discard to delete these units and compute them again"
    )


def discard(names: Sequence[str], done: Done) -> None:
    """Deletes the folders of units."""
    for name in names:
        shutil.rmtree(done.folder / name, ignore_errors=True)


def flat(value: Json, path: str = "") -> Iterator[tuple[str, Json]]:
    """Yields the leaves of nested mappings by dotted path. An empty mapping is a leaf."""
    if isinstance(value, Mapping) and value:
        for name, item in value.items():
            yield from flat(item, f"{path}.{name}" if path else str(name))
    else:
        yield path, value
