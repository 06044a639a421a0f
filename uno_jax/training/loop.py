"""The training loop: dispatches steps, reads metrics one step late, evaluates and saves checkpoints."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple, NoReturn, Protocol, runtime_checkable

import jax
import numpy as np

from uno_jax.batch import Batch, PixelBatch
from uno_jax.config import ConfigError
from uno_jax.parallel.hosts import agree, gather_json
from uno_jax.process.errors import CheckpointError, UserError
from uno_jax.process.signals import stop_event
from uno_jax.process.watchdog import Watchdog
from uno_jax.training.checkpoint_folders import DataState
from uno_jax.training.limits import Rewind, SkipLimit, reason, write_description
from uno_jax.training.saving import Saver
from uno_jax.training.state import Params, TrainState, merge

Metrics = dict[str, Any]

# Seconds that the watchdog gives, at least, to what may compile a program.
_COMPILATION = 2 * 3600.0

# Seconds of further attempts if the last state cannot be saved. A process that was told to stop is soon killed.
_PATIENCE_WHEN_STOPPED, _PATIENCE_AT_THE_END = 10.0, 60.0

# Seconds that a process that was told to stop still waits for a batch.
_PATIENCE_FOR_DATA = 5.0
_POLL_SECONDS = 0.5


@runtime_checkable
class PackedBatch(Protocol):
    """Output of the data pipeline."""

    batch: PixelBatch | Batch
    """This host's rows, numpy."""
    sample_ids: Sequence[Sequence[str]]
    """Ids of the samples of each row."""
    stats: Mapping[str, float]
    """Metrics of the pipeline, for example padding shares."""


@runtime_checkable
class Batches(Protocol):
    """An iterator with a readable position, the one after the last batch returned."""

    def __next__(self) -> PackedBatch: ...

    def get_state(self) -> DataState: ...


@dataclass(frozen=True)
class Schedule:
    """Length of the loop and intervals in steps; 0 = never."""

    steps: int
    probe_every: int = 0
    evaluate_every: int = 0
    pictures_every: int = 0


@dataclass(frozen=True)
class Parts:
    """Functions that the loop calls."""

    train_step: Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
    put: Callable[[PixelBatch | Batch], Batch]
    """Encodes this host's batch and puts it on the devices."""
    saver: Saver
    on_metrics: Callable[[int, dict[str, float], StepCounts], None]
    """Called with each step's metrics, one step late."""
    autoencoder: Params | None = None
    """Saved with every checkpoint."""
    probe: Callable[[TrainState, Batch], tuple[TrainState, Metrics]] | None = None
    """Measures gradient norms on the batch of the next step."""
    on_evaluate: Callable[[int, TrainState], None] | None = None
    """Also called before the first step and after the last."""
    on_pictures: Callable[[int, Params], None] | None = None
    skip_limit: SkipLimit = field(default_factory=lambda: SkipLimit(0))
    rewinds: int = 0
    """How often the run may still rewind at a spike of the loss."""
    watchdog: Watchdog = field(default_factory=lambda: Watchdog(0))
    """Told what the loop waits for."""
    workdir: Path | None = None
    """Folder for descriptions of bad steps; None = nothing is written."""


class StepCounts(NamedTuple):
    """Contents of a batch, for throughput and logs."""

    tokens: int
    """Number of tokens, without padding."""
    images: int
    """Noised targets."""
    stats: Mapping[str, float]


class _Dispatched(NamedTuple):
    """A dispatched step whose metrics have not been read."""

    step: int
    metrics: Metrics
    sample_ids: Sequence[Sequence[str]]
    data_before: DataState
    data_after: DataState
    counts: StepCounts
    patience: float
    """Seconds that it may take at least, because it may be compiled."""


def run_loop(state: TrainState, batches: Batches, parts: Parts, schedule: Schedule) -> tuple[TrainState, bool]:
    """Trains from the state's step to `schedule.steps`. Returns the state and whether it reached the last step.

    On SIGTERM, SIGINT or SIGHUP it saves a checkpoint and stops early. With several hosts, a signal to any of them
    stops all of them after the same step.

    Raises:
      CheckpointError: the last state could not be saved.
      ConfigError: the batches end before the last step. The message names the checkpoint that was saved.
      UserError: a batch could not be made. With one host, the state was saved.
      FloatingPointError: a step was not applied, because a loss or gradient was not finite or at a spike of the loss,
        and a checkpoint of the state before it was saved; or too many batches in a row were skipped, and nothing was
        saved. The message names the step, the losses, the samples and the checkpoint.
      Rewind: at a spike of the loss, if the run may rewind.
    """
    started = step = int(jax.device_get(state.step))
    data_state = batches.get_state()
    waiting: _Dispatched | None = None
    ended = postponed = False
    first, patience = True, _COMPILATION
    with stop_event() as stop:
        if step == 0:
            _look(0, state, parts, schedule, first=True)
        asked = agree(lambda: stop.is_set() or parts.saver.wants())
        while step < schedule.steps:
            _await(parts, f"step {step} and the other hosts", patience)
            stopping, saving = _requests(stop, parts.saver) if asked() else (False, False)
            if stopping:
                break
            asked = agree(lambda: stop.is_set() or parts.saver.wants())
            data_before = data_state
            parts.watchdog.awaits(f"the batch of step {step + 1}")
            try:
                packed = _next(batches, stop)
            except _NoBatch:
                break
            except UserError as error:
                if waiting is not None:
                    _read(waiting, state, parts)
                kept = _keep_on_this_host(step, step > started, state, data_state, parts)
                raise UserError(f"{error}. {kept}") from error
            if packed is None:  # at the same step on all hosts
                ended = True
                break
            data_state = batches.get_state()
            probing = parts.probe is not None and _due(step, schedule.probe_every)
            patience = _COMPILATION if first or probing else 0.0
            first = False
            _await(parts, f"step {step + 1}", patience)
            batch = parts.put(packed.batch)
            probed: Metrics = {}
            with jax.transfer_guard("disallow"):
                if parts.probe is not None and probing:
                    state, probed = parts.probe(state, batch)
                state, metrics = parts.train_step(state, batch)
            step += 1
            dispatched = _Dispatched(
                step, metrics | probed, packed.sample_ids, data_before, data_state, count_tokens(packed), patience
            )
            if waiting is not None:
                _read(waiting, state, parts)
            waiting = dispatched
            last = step == schedule.steps
            saving = saving or postponed or parts.saver.due(step)
            if last or saving or _due_any(step, schedule):
                # This step's metrics tell whether the state latched. A latched state must not be saved or evaluated.
                _read(waiting, state, parts)
                waiting = None
                _look(step, state, parts, schedule, last=last)
                # While batches are skipped, nothing is saved, so that good checkpoints are not deleted for such states.
                postponed = saving and parts.skip_limit.in_a_row > 0
                if saving and not last and not postponed:
                    _await(parts, f"the checkpoint of step {step}")
                    parts.saver.save(step, state, data_state, parts.autoencoder)
        if waiting is not None:
            _read(waiting, state, parts)
        _await(parts, f"the checkpoint of step {step}")
        if stop.is_set():
            parts.saver.save_last(step, state, data_state, parts.autoencoder, patience=_PATIENCE_WHEN_STOPPED)
        else:
            parts.saver.save_last(
                step, state, data_state, parts.autoencoder, patience=_PATIENCE_AT_THE_END, sleep=stop.wait
            )
    if ended:
        raise ConfigError(
            f"the data end after step {step} of {schedule.steps}, because data.epochs is not 0. The state is saved in "
            f"{parts.saver.checkpoints.directory / str(step)}. Set steps={step}, or data.epochs=0 for endless data"
        )
    return state, step == schedule.steps


class _NoBatch(Exception):
    """The process was told to stop, and no batch came."""


def _next(batches: Batches, stop: Event) -> PackedBatch | None:
    """Returns the next batch, or None at the end of the data.

    With one host, a thread waits for it, so that the last state is saved although a data worker hangs.

    Raises:
      _NoBatch: the process was told to stop, and no batch came for some seconds.
    """
    if jax.process_count() > 1:
        return next(batches, None)
    found: queue.SimpleQueue[tuple[PackedBatch | None, BaseException | None]] = queue.SimpleQueue()

    def fetch() -> None:
        try:
            found.put((next(batches, None), None))
        except BaseException as error:
            found.put((None, error))

    threading.Thread(target=fetch, name="waits for a batch", daemon=True).start()
    left = _PATIENCE_FOR_DATA
    while True:
        try:
            packed, error = found.get(timeout=_POLL_SECONDS)
        except queue.Empty:
            left -= _POLL_SECONDS if stop.is_set() else 0.0
            if left <= 0:
                raise _NoBatch from None
            continue
        if error is not None:
            raise error
        return packed


def count_tokens(packed: PackedBatch) -> StepCounts:
    """Counts the tokens (without padding) and noised targets of a host's batch."""
    batch = packed.batch
    tokens = sum(np.count_nonzero(np.asarray(m.sample)) for m in (batch.understanding, batch.generation))
    images = np.count_nonzero(batch.latent_loss & (batch.latent_index == 0))
    return StepCounts(int(tokens), int(images), packed.stats)


def _requests(stop: Event, saver: Saver) -> tuple[bool, bool]:
    """Whether any host wants to stop, and whether any wants to save. Called by all hosts."""
    requests = gather_json([stop.is_set(), saver.wants()])
    return any(stopping for stopping, _ in requests), any(saving for _, saving in requests)


def _await(parts: Parts, what: str, at_least: float = 0.0) -> None:
    """Tells the watchdog what this host and any others wait for."""
    parts.watchdog.awaits(what, at_least=at_least, shared=jax.process_count() > 1)


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _due_any(step: int, schedule: Schedule) -> bool:
    return any(_due(step, every) for every in (schedule.evaluate_every, schedule.pictures_every))


def _look(
    step: int, state: TrainState, parts: Parts, schedule: Schedule, *, first: bool = False, last: bool = False
) -> None:
    """Evaluates held-out losses and generates pictures if they are due."""
    always = first or last
    if parts.on_evaluate is not None and (always or _due(step, schedule.evaluate_every)):
        _await(parts, f"the evaluation of step {step}", _COMPILATION)
        parts.on_evaluate(step, state)
    if parts.on_pictures is not None and schedule.pictures_every and (always or _due(step, schedule.pictures_every)):
        _await(parts, f"the pictures of step {step}", _COMPILATION)
        parts.on_pictures(step, merge(state.trainable, state.frozen))


def _read(dispatched: _Dispatched, state: TrainState, parts: Parts) -> None:
    """Fetches the metrics of a step and reports them. Stops the run if the step was not applied."""
    _await(parts, f"step {dispatched.step}", dispatched.patience)
    metrics = {name: np.asarray(value).item() for name, value in jax.device_get(dispatched.metrics).items()}
    if metrics["latched"]:
        _end(dispatched, metrics, state, parts)
    if parts.skip_limit.reached(dispatched.step, metrics):
        samples = _samples(dispatched)
        described = write_description(parts.workdir, dispatched.step, metrics, samples)
        raise FloatingPointError(
            f"{parts.skip_limit.in_a_row} batches in a row were skipped, the last one in step {dispatched.step}: "
            f"{reason(metrics)}.{described} Nothing was saved since; {_newest(_whole_steps(parts.saver))}. Resume from "
            "it or, with --resume_step, from an earlier one, with a lower optimizer.learning_rate or another "
            "limits.max_consecutive_skips"
        )
    parts.on_metrics(dispatched.step, {name: float(value) for name, value in metrics.items()}, dispatched.counts)


def _end(dispatched: _Dispatched, metrics: Metrics, state: TrainState, parts: Parts) -> NoReturn:
    """Raises for a step that latched the state."""
    samples, step = _samples(dispatched), dispatched.step
    described = write_description(parts.workdir, step, metrics, samples)
    if metrics["finite"] and parts.rewinds and (saved := _whole_steps(parts.saver)):
        raise Rewind(
            f"Step {step}: {reason(metrics)}.{described} Going back to the checkpoint of step {saved[-1]} and on with "
            f"the data after this batch; {parts.rewinds - 1} more rewinds are allowed.",
            dispatched.data_after,
        )
    kept = _keep(step - 1, state, dispatched.data_before, parts)
    rows = "\n".join(f"  row {row}: {', '.join(ids)}" for row, ids in enumerate(samples) if ids)
    setting = "limits.spike" if metrics["finite"] else "optimizer.nonfinite"
    raise FloatingPointError(
        f"step {step}: {reason(metrics)}. The update was not applied.\n"
        f"Samples of the batch:\n{rows}\n"
        f"{kept}.{described} The same command resumes from it with the same batch. "
        f"Set {setting} to 'skip' to skip such batches, or lower optimizer.learning_rate."
    )


def _keep(step: int, state: TrainState, data_state: DataState, parts: Parts) -> str:
    """Saves a state that the run ends with, and says where it is. Called by all hosts."""
    _await(parts, f"the checkpoint of step {step}")
    try:
        parts.saver.save_last(step, state, data_state, parts.autoencoder, patience=_PATIENCE_WHEN_STOPPED)
        return f"The state of step {step} is saved in {parts.saver.checkpoints.directory / str(step)}"
    except (CheckpointError, FloatingPointError) as error:
        return f"The state of step {step} could not be saved: {error}"


def _keep_on_this_host(step: int, new: bool, state: TrainState, data_state: DataState, parts: Parts) -> str:
    """Saves the state if it is new, unless there are other hosts, which do not know that this one fails."""
    if new and jax.process_count() == 1:
        return _keep(step, state, data_state, parts)
    saved = _newest(parts.saver.checkpoints.steps())
    return saved[0].upper() + saved[1:]


def _samples(dispatched: _Dispatched) -> list[list[str]]:
    """Ids of the samples of each row of all hosts. Called by all hosts."""
    return [ids for host in gather_json([list(ids) for ids in dispatched.sample_ids]) for ids in host]


def _whole_steps(saver: Saver) -> list[int]:
    """Steps of the finished checkpoints, as host 0 finds them. Called by all hosts."""
    with contextlib.suppress(CheckpointError):
        saver.checkpoints.wait()
    steps: list[int] = gather_json(saver.checkpoints.steps())[0]
    return steps


def _newest(saved: Sequence[int]) -> str:
    return f"the newest checkpoint is of step {saved[-1]}" if saved else "there is no checkpoint"
