"""What a terminal shows of a conversion: progress, rejected records, and what was left out and rewritten."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from uno_jax.data.conversion.dataset_files import LEFT_OUT
from uno_jax.data.conversion.ledger import Ledger, by_cause, by_field
from uno_jax.data.sources.source import Rejection

_REJECTIONS_SHOWN = 50


def progress_of(console: Console) -> Progress:
    """Returns the progress bars of a conversion, which the console shows."""
    text = TextColumn("{task.description:18}")
    return Progress(text, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console)


class ProgressReporter:
    """Shows progress and rejections on the terminal."""

    def __init__(self, progress: Progress):
        self._progress = progress
        self._rejections = 0

    def begin(self, stage: str, total: int | None) -> Callable[[], None]:
        """Shows a new stage, and returns the function to call after each item."""
        task = self._progress.add_task(stage, total=total)
        return lambda: self._progress.advance(task)

    def advance(self, stage: str, total: int | None) -> Callable[[int], None]:
        """Shows a new stage, and returns the function to call with a number of items that are done."""
        task = self._progress.add_task(stage, total=total)
        return lambda items: self._progress.advance(task, items)

    def reject(self, rejection: Rejection) -> None:
        """Prints a rejection, up to a number of them."""
        self._rejections += 1
        if self._rejections <= _REJECTIONS_SHOWN:
            self._print(f"rejected {rejection}")

    def summarise(self, ledger: Ledger) -> None:
        """Prints how many records were rejected and left out, if any, and why, and how many pictures were rewritten."""
        if ledger.left_out:
            causes = _listed(by_cause(ledger.left_out))
            listed = f", listed in {LEFT_OUT}" if ledger.accepted else ""  # without records no dataset is written
            self._print(f"{len(ledger.left_out)} records left out ({causes}){listed}")
        if ledger.rewritten:
            self._print(f"{ledger.rewritten.total()} pictures rewritten ({_listed(ledger.rewritten)})")
        if not ledger.rejected:
            return
        more = self._rejections - _REJECTIONS_SHOWN
        if more > 0:
            self._print(f"... and {more} more rejections")
        fields = _listed(by_field(ledger.rejections))
        records = ledger.rejected + ledger.accepted
        self._print(f"{ledger.rejected} of {records} records rejected (rejections by field: {fields})")

    def _print(self, text: str) -> None:
        self._progress.console.print(text, markup=False, highlight=False)


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in counts.items())
