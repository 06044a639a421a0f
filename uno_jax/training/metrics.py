"""Metrics of a run: TensorBoard event files, `metrics.jsonl`, and the console."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import rich.console
import rich.progress

from uno_jax.objectives.losses import LOSSES
from uno_jax.process.files import atomic_file
from uno_jax.process.json_reader import JsonError, parse_json

Scalars = Mapping[str, float]


class MetricsFile:
    """`metrics.jsonl`: one JSON object per line, with `step` and its scalars. Non-finite values are strings."""

    def __init__(self, path: str | Path, resume_step: int = 0):
        """Opens the file for appending. Drops lines after `resume_step`, which will be computed again.

        A new run (`resume_step` 0) drops all lines.
        """
        self.path = Path(path)
        kept = [line for line in read_metrics(self.path) if 0 < resume_step >= line["step"]]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(self.path) as temporary:  # a run killed here loses no metrics
            temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))
        self._file = self.path.open("a")

    def write(self, step: int, scalars: Scalars) -> None:
        """Appends one line and flushes it, so that a killed run keeps its metrics."""
        values = {name: value if math.isfinite(value) else str(value) for name, value in scalars.items()}
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """Reads the lines of a `metrics.jsonl`, without a truncated last line. Returns no lines if there is no file."""
    if not Path(path).is_file():
        return []
    lines = []
    for line in Path(path).read_text().splitlines():
        try:
            lines.append(parse_json(line))
        except JsonError:
            break
    return lines


class LogWindow:
    """Aggregates the metrics of `every` steps into one line.

    Losses are means over their tokens in the window; losses without tokens are omitted. Counts of samples are sums.
    Learning rate, weights, gradient norms and cosines are the latest values. Other metrics are means over steps.
    """

    _LATEST = ("learning_rate", "skipped", "weight/", "gradient_norm/", "gradient_cosine/", "constant/")
    _SUMS = ("samples", "filtered", "without_caption")  # and all that begin with one of these and a slash
    _DROPPED = ("finite", "latched", "tokens/")

    def __init__(self, every: int, gather: Callable[[Any], list[Any]] = lambda value: [value]):
        """`gather` returns the values of all hosts that make rows. Every host must call `add` for every step."""
        self._every, self._gather = every, gather
        self._totals: dict[str, tuple[float, float]] = {}
        self._latest: dict[str, float] = {}

    def add(self, step: int, metrics: Scalars, others: Scalars) -> dict[str, float] | None:
        """Adds the metrics of `step`, and `others` without token counts. Returns the line if one is due."""
        for name, value in {**others, **metrics}.items():
            if name.startswith(self._DROPPED):
                continue
            if name.startswith(self._LATEST):
                self._latest[name] = value
                continue
            weight = metrics.get(f"tokens/{name}", 1.0)
            total, count = self._totals.get(name, (0.0, 0.0))
            self._totals[name] = (total + value * weight, count + weight) if weight else (total, count)
        if step % self._every:
            return None
        totals: dict[str, np.ndarray] = {}
        for host in self._gather(self._totals):
            for name, pair in host.items():
                totals[name] = totals.get(name, 0.0) + np.asarray(pair, np.float64)
        line = {
            name: float(total) if name.split("/")[0] in self._SUMS else float(total / count)
            for name, (total, count) in totals.items()
            if count
        }
        line |= self._latest
        self._totals, self._latest = {}, {}
        return line


class MetricsWriter:
    """Writes scalars to `metrics.jsonl` and, in a background thread, to TensorBoard event files."""

    def __init__(self, workdir: str | Path, *, resume_step: int = 0, tensorboard: bool = True):
        self._file = MetricsFile(Path(workdir) / "metrics.jsonl", resume_step)
        self._event_file = None
        if tensorboard:
            # Imported lazily, because it takes a second.
            from uno_jax.training.event_files import open_event_file

            self._event_file = open_event_file(Path(workdir) / "tensorboard")

    def write(self, step: int, scalars: Scalars) -> None:
        """Writes the scalars of one step."""
        self._file.write(step, scalars)
        if self._event_file is not None:
            self._event_file.write_scalars(step, scalars)

    def close(self) -> None:
        """Blocks until everything is written."""
        self._file.close()
        if self._event_file is not None:
            self._event_file.close()


class Progress:
    """The progress line: step, losses, tokens/s, images/s, time left.

    A terminal shows a single line that is updated. Other outputs get a line every `every` steps.
    """

    def __init__(self, console: rich.console.Console, steps: int, every: int, start: int = 0):
        self._console, self._steps, self._every = console, steps, every
        self._speed = Throughput(start)
        self._bar: rich.progress.Progress | None = None
        if console.is_terminal:
            self._bar = rich.progress.Progress(
                rich.progress.TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
                rich.progress.BarColumn(bar_width=20),
                rich.progress.TextColumn("{task.description}"),
                console=console,
            )
            self._task = self._bar.add_task("compiling", total=steps, completed=start)
            self._bar.start()

    def update(self, step: int, scalars: Scalars, tokens: int, images: int) -> dict[str, float]:
        """Shows the metrics of `step` and returns throughput. `tokens` exclude padding; `images` are noised targets."""
        speed = self._speed.update(step, tokens, images)
        shown = [loss.name for loss in LOSSES if scalars.get(f"tokens/{loss.name}", 0)]
        losses = "  ".join(f"{name} {scalars[name]:.4f}" for name in shown)
        left = speed["seconds_per_step"] * (self._steps - step)
        text = f"{losses}  {speed['tokens_per_second']:,.0f} tokens/s  {speed['images_per_second']:.1f} images/s"
        text += f"  {_duration(left)} left"
        if self._bar is not None:
            self._bar.update(self._task, completed=step, description=text)
        elif step % self._every == 0 or step == self._steps:
            self._console.print(f"step {step}/{self._steps}  {text}", soft_wrap=True, highlight=False)
        return speed

    def close(self) -> None:
        """Stops updating the line."""
        if self._bar is not None:
            self._bar.stop()


class Throughput:
    """Exponential moving average of the speed, without the first step (compilation)."""

    def __init__(self, start: int = 0, decay: float = 0.9):
        self._step, self._decay = start, decay
        self._last: float | None = None
        self._seconds = self._tokens = self._images = self._steps = 0.0

    def update(self, step: int, tokens: int, images: int, now: float | None = None) -> dict[str, float]:
        """Adds a finished step; `now` is the time in seconds (default: the monotonic clock)."""
        now = time.monotonic() if now is None else now
        if self._last is not None:
            self._seconds = self._decay * self._seconds + (now - self._last)
            self._tokens = self._decay * self._tokens + tokens
            self._images = self._decay * self._images + images
            self._steps = self._decay * self._steps + (step - self._step)
        self._last, self._step = now, step
        seconds = max(self._seconds, 1e-9)
        known = self._steps > 0
        return {
            "tokens_per_second": self._tokens / seconds if known else 0.0,
            "images_per_second": self._images / seconds if known else 0.0,
            "seconds_per_step": seconds / self._steps if known else 0.0,
        }


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
