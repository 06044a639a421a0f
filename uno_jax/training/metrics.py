"""Metrics of a run: TensorBoard event files, `metrics.jsonl`, and the console."""

from __future__ import annotations

import functools
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
from uno_jax.process.files import AppendedFile, atomic_file
from uno_jax.process.json_reader import JsonError, parse_json
from uno_jax.training.wandb_run import WandbRun

Scalars = Mapping[str, float]
Say = Callable[[str], None]


class MetricsFile:
    """`metrics.jsonl`: one JSON object per line, with `step` and its scalars. Non-finite values are strings."""

    def __init__(self, path: str | Path, resume_step: int = 0, say: Say = print):
        """Opens the file for appending. Drops lines after `resume_step`, which will be computed again.

        A new run (`resume_step` 0) drops all lines. Damaged lines are dropped too, and reported with `say`.
        """
        self.path = Path(path)
        lines, damaged = _read_lines(self.path)
        if damaged and resume_step:
            say(f"{self.path}: not a metric of a step, dropped: line {', '.join(map(str, damaged))}.")
        kept = [text for text, line in lines if 0 < resume_step >= line["step"]]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(self.path) as temporary:  # a run killed here loses no metrics
            temporary.write_bytes(b"".join(text + b"\n" for text in kept))
        self._file = AppendedFile(self.path)

    def write(self, step: int, scalars: Scalars) -> None:
        """Appends one line, so that a killed run keeps its metrics.

        Raises:
          OSError: the line cannot be written yet. The next call writes it as well.
        """
        values = {name: value if math.isfinite(value) else str(value) for name, value in scalars.items()}
        self._file.write((json.dumps({"step": step, **values}) + "\n").encode())

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """Reads the lines of a `metrics.jsonl`, without damaged ones. Returns no lines if there is no file."""
    return [line for _, line in _read_lines(Path(path))[0]]


def _read_lines(path: Path) -> tuple[list[tuple[bytes, dict[str, Any]]], list[int]]:
    """Returns the lines, with their text, and the numbers of damaged ones except for a last line that was cut off."""
    if not path.is_file():
        return [], []
    lines, damaged = [], []
    *texts, rest = path.read_bytes().split(b"\n")
    for number, text in enumerate([*texts, rest] if rest else texts, 1):
        try:
            line = parse_json(text)
            if not isinstance(line, dict) or type(line.get("step")) is not int:
                raise JsonError("no metrics of a step")
            lines.append((text, line))
        except JsonError:
            if number <= len(texts):
                damaged.append(number)
    return lines, damaged


class LogWindow:
    """Aggregates the metrics of `every` steps into one line.

    Losses are means over their tokens in the window; losses without tokens are omitted. Counts of samples are sums.
    Learning rate, weights, gradient norms and cosines are the latest values. Other metrics are means over steps.
    """

    _LATEST = ("learning_rate", "skipped", "weight/", "gradient_norm/", "gradient_cosine/", "constant/")
    _SUMS = (
        "samples",
        "filtered",
        "other_caption",
        "unsupervised",
        "without_caption",
    )  # and all that begin with one of these and a slash
    _DROPPED = ("finite", "latched", "spike", "tokens/")

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
    """Writes scalars to `metrics.jsonl`, a TensorBoard event file and a run at Weights & Biases.

    What cannot be written, for example because the disk is full, is reported once, and written later.
    """

    def __init__(
        self,
        workdir: str | Path,
        *,
        resume_step: int = 0,
        tensorboard: bool = True,
        wandb_run: WandbRun | None = None,
        say: Say = print,
    ):
        """Opens the files and drops what they hold after `resume_step`. `say` shows a warning to the user.

        Raises:
          OSError: the workdir cannot be written.
        """
        self._say, self._failing = say, set[str]()
        self._files: dict[str, Any] = {"metrics.jsonl": MetricsFile(Path(workdir) / "metrics.jsonl", resume_step, say)}
        if tensorboard:
            # Imported lazily, because it takes a second.
            from uno_jax.training.event_files import EventFileWriter, drop_later_events

            drop_later_events(Path(workdir) / "tensorboard", resume_step)
            self._files["TensorBoard events"] = EventFileWriter(Path(workdir) / "tensorboard")
        if wandb_run is not None:
            self._files["Weights & Biases"] = wandb_run

    def write(self, step: int, scalars: Scalars) -> None:
        """Writes the scalars of one step."""
        for name, file in self._files.items():
            write = file.write if isinstance(file, MetricsFile) else file.write_scalars
            self._try(name, functools.partial(write, step, scalars))

    def close(self) -> None:
        """Closes the files."""
        for name, file in self._files.items():
            self._try(name, file.close)

    def _try(self, name: str, act: Callable[[], None]) -> None:
        try:
            act()
            self._failing.discard(name)
        except OSError as error:
            if name not in self._failing:
                self._say(f"{name} cannot be written ({error.strerror or error}). Training goes on without.")
            self._failing.add(name)


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
