"""Reports the samples that the data pipeline skips: a file that lists them, and warnings."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import rich.console

from uno_jax.data.buffers import WARN_ABOVE
from uno_jax.data.pipeline import PackedBatch, TooManySkipped
from uno_jax.data.samples import Skipped, SkippedCount, outcomes
from uno_jax.process.json_reader import JsonError, parse_json

_ENOUGH = 1000  # samples of which a share says something


class SkippedFile:
    """`skipped.jsonl`: one line with id, cause, message and outcome for each record that could not be used as it is.

    A warning is printed for the first skipped sample, the tenth, the hundredth, and so on, and as soon as more than 1%
    of at least a thousand samples were skipped, or have a caption that is too long.
    """

    def __init__(self, file: Path, console: rich.console.Console):
        self._file, self._console = file, console
        content = file.read_bytes() if file.is_file() else b""
        self._listed = set(_listed(content))
        self._before = "" if content[-1:] in (b"", b"\n") else "\n"  # the last line was cut when a process was killed
        self._count, self._kept_count = SkippedCount(), SkippedCount()
        self._kept: Counter[str] = Counter()
        self._samples = 0
        self._many = self._many_kept = False

    def add(self, samples: int, skipped: Sequence[Skipped], kept: Sequence[Skipped] = ()) -> None:
        """Counts a batch, and lists its skipped samples and those with a caption that is too long."""
        self._samples += samples
        before = self._count.causes.total()
        self._count.add(skipped)
        self._kept_count.add(kept)
        new = {_key(skip._asdict()): skip for skip in (*skipped, *kept)}
        new = {key: skip for key, skip in new.items() if key not in self._listed}
        if new:
            self._write(new.values())
            self._listed |= new.keys()
        total = self._count.causes.total()
        drawn = self._samples + total
        many = drawn >= _ENOUGH and total > WARN_ABOVE * drawn
        if skipped and (_digits(total) > _digits(before) or (many and not self._many)):
            self._warn(skipped[-1])
        self._many |= many
        self._kept.update(skip.outcome for skip in kept)
        many_kept = drawn >= _ENOUGH and self._kept.total() > WARN_ABOVE * drawn
        if many_kept and not self._many_kept:
            self._print(
                f"warning: {self._kept.total():,} of {drawn:,} samples have a caption that is too long: "
                f"{outcomes(self._kept)}. {self._kept_count.advice}All are listed in {self._file}"
            )
        self._many_kept |= many_kept

    def _write(self, skipped: Iterable[Skipped]) -> None:
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("a", encoding="utf-8") as file:
                file.write(self._before + "".join(json.dumps(skip._asdict()) + "\n" for skip in skipped))
            self._before = ""
        except OSError as error:  # a list is not worth a run
            self._print(f"warning: {self._file} cannot be written ({error.strerror or error})")

    def _warn(self, last: Skipped) -> None:
        count = self._count.causes.total()
        drawn = self._samples + count
        causes = ", ".join(f"{cause} {number}" for cause, number in self._count.causes.most_common())
        self._print(
            f"warning: {count:,} of {drawn:,} samples ({count / drawn:.1%}) were skipped ({causes}). "
            f"{self._count.advice}The last one: {last.message}. All are listed in {self._file}"
        )

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


class Watched:
    """The iterator of batches, whose skipped samples go to a `SkippedFile`."""

    def __init__(self, batches: Any, skipped: SkippedFile):
        self._batches, self._skipped = batches, skipped

    def __iter__(self) -> Iterator[PackedBatch]:
        return self

    def __next__(self) -> PackedBatch:
        try:
            packed: PackedBatch = next(self._batches)
        except TooManySkipped as error:
            self._skipped.add(0, error.skipped)
            raise
        self._skipped.add(int(packed.stats["samples"]), packed.skipped, packed.kept)
        return packed

    def get_state(self) -> Any:
        return self._batches.get_state()

    def set_state(self, state: Any) -> None:
        self._batches.set_state(state)

    def awaited(self) -> str:
        awaited: str = self._batches.awaited()
        return awaited

    def close(self) -> None:
        self._batches.close()


def _digits(count: int) -> int:
    return len(str(count)) if count else 0


def _key(line: Mapping[str, Any]) -> tuple[str, str, str]:
    """Returns what a line is about: the record, the cause and the outcome, which earlier versions did not write."""
    return line["id"], line["cause"], line.get("outcome", "skipped")


def _listed(content: bytes) -> Iterator[tuple[str, str, str]]:
    """Yields the keys of the lines that an earlier process of the run wrote."""
    for line in content.splitlines():
        try:
            yield _key(parse_json(line))
        except (JsonError, KeyError, TypeError, AttributeError):
            continue
