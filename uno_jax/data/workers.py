"""Batches made by several processes, each of which makes the rows of some virtual shards.

Python makes about a thousand samples a second on one core, which starves a small model on a fast device. Every process
plays the part of one of several hosts, so the rows, their order and the positions of the shards are those of one
process.
"""

from __future__ import annotations

import contextlib
import dataclasses
import faulthandler
import functools
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any

import jax
import numpy as np

from uno_jax.batch import Layout
from uno_jax.data.config import DataConfig
from uno_jax.data.mixture import Mixture
from uno_jax.data.pipeline import Batches, PackedBatch, batches_of_mixture
from uno_jax.data.tokenizer import Tokenizer
from uno_jax.process.errors import UserError

MakeBatches = Callable[[int, int], Batches]
"""Makes the iterator of a part of the shards, from the number of the part and the number of parts."""


class WorkerError(UserError):
    """Raised if a process ended that makes batches."""


def open_batches(
    mixture: Mixture,
    config: DataConfig,
    layout: Layout,
    tokenizer: Tokenizer,
    *,
    host_index: int = 0,
    host_count: int = 1,
) -> Batches | WorkerBatches:
    """Returns batches as `batches_of_mixture` does, with `config.workers` processes if there are any.

    The processes are sent the opened mixture, so they do not open its datasets again.

    Raises:
      ValueError: as for `batches_of_mixture`, or `workers` does not divide the virtual shards of a host.
    """
    if config.workers < 1:  # a negative number is refused by the checks of `batches_of_mixture`
        return batches_of_mixture(mixture, config, layout, tokenizer, host_index=host_index, host_count=host_count)
    of = host_count * config.workers
    if config.virtual_shards % of:
        raise ValueError(
            f"data.virtual_shards is {config.virtual_shards}, not a multiple of data.workers = {config.workers} times "
            f"{host_count} hosts. Every worker makes the rows of as many virtual shards: change one of the two"
        )
    make = functools.partial(_make_part, mixture, dataclasses.replace(config, workers=0), layout, tokenizer)
    return WorkerBatches(make, range(host_index * config.workers, (host_index + 1) * config.workers), of)


def _make_part(
    mixture: Mixture, config: DataConfig, layout: Layout, tokenizer: Tokenizer, part: int, of: int
) -> Batches:
    return batches_of_mixture(mixture, config, layout, tokenizer, host_index=part, host_count=of)


class WorkerBatches:
    """An iterator of batches like `Batches`, made by processes that are one batch ahead."""

    def __init__(self, make: MakeBatches, parts: range, of: int):
        """Starts a process for each part.

        Args:
          make: a picklable function.
          parts: the consecutive parts of this host.
          of: number of parts of all hosts.
        """
        new = multiprocessing.get_context("forkserver")  # JAX does not survive a fork
        self._connections: list[Connection] = []
        self._processes = []
        for part in parts:
            ours, theirs = new.Pipe()
            process = new.Process(target=_serve, args=(theirs, make, part, of), daemon=True)
            process.start()
            theirs.close()
            self._connections.append(ours)
            self._processes.append(process)
        self._ahead = False
        self._awaited: int | None = None
        try:
            self._states: list[dict[str, Any]] = self._ask("get_state")
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[PackedBatch]:
        return self

    def __next__(self) -> PackedBatch:
        if not self._ahead:
            self._request("next")
        self._ahead = False
        found = self._answers()
        if found[0] is None:  # the last epoch has ended, in all parts at the same time
            raise StopIteration
        self._request("next")
        self._ahead = True
        self._states = [state for _, state in found]
        return joined([packed for packed, _ in found])

    def get_state(self) -> dict[str, Any]:
        """Returns the position after the last batch returned, as `Batches.get_state`."""
        return {name: position for state in self._states for name, position in state.items()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continues bit for bit from a state."""
        if self._ahead:
            self._answers()
            self._ahead = False
        self._states = self._ask("set_state", state)

    def awaited(self) -> str:
        """Names the process whose answer is awaited, and makes it print the stacks of its threads to stderr.

        Any thread may call it.
        """
        number = self._awaited
        if number is None:
            return ""
        process = self._processes[number]
        if process.pid is not None:
            with contextlib.suppress(OSError):  # it has ended
                os.kill(process.pid, signal.SIGUSR1)
                time.sleep(1)
        return f"of data worker {number}, process {process.pid}"

    def close(self) -> None:
        """Ends the processes."""
        for connection in self._connections:
            connection.close()
        for process in self._processes:
            process.join(timeout=1)
            process.terminate()

    def _ask(self, *request: Any) -> list[Any]:
        self._request(*request)
        return self._answers()

    def _request(self, *request: Any) -> None:
        for connection in self._connections:
            try:
                connection.send(request)
            except OSError as error:
                raise _ended() from error

    def _answers(self) -> list[Any]:
        """Returns the answers of all processes.

        Raises:
          The first exception that is an answer.
        """
        found = []
        for number, connection in enumerate(self._connections):
            self._awaited = number
            try:
                found.append(connection.recv())
            except (EOFError, OSError) as error:
                raise _ended() from error
        self._awaited = None
        for answer in found:
            if isinstance(answer, BaseException):
                raise answer
        return found


def joined(parts: Sequence[PackedBatch]) -> PackedBatch:
    """Joins the rows of parts of a batch, which have equally many, and their statistics."""
    names = dict.fromkeys(name for packed in parts for name in packed.stats)
    totals = {name: sum(packed.stats.get(name, 0.0) for packed in parts) for name in names}
    arrays = zip(*(jax.tree.leaves(packed.batch) for packed in parts), strict=True)
    return PackedBatch(
        batch=jax.tree.unflatten(jax.tree.structure(parts[0].batch), [np.concatenate(each) for each in arrays]),
        sample_ids=[ids for packed in parts for ids in packed.sample_ids],
        stats={name: total / len(parts) if name.startswith("padding/") else total for name, total in totals.items()},
        skipped=[skipped for packed in parts for skipped in packed.skipped],
        kept=[kept for packed in parts for kept in packed.kept],
    )


def _serve(connection: Connection, make: MakeBatches, part: int, of: int) -> None:
    """Answers requests until the connection is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all processes; the one that trains ends these
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # so does that of a lost terminal
    faulthandler.register(signal.SIGUSR1)  # of the one that trains, if it waits for too long
    try:
        batches: Batches | Exception = make(part, of)
    except Exception as error:  # raised where it can be handled
        batches = error
    while True:
        try:
            request = connection.recv()
            connection.send(_answer(batches, *request))
        except (EOFError, OSError):
            return


def _answer(batches: Batches | Exception, request: str, *arguments: Any) -> Any:
    if isinstance(batches, Exception):
        return batches
    try:
        if request == "next":
            packed = next(batches, None)
            return None if packed is None else (packed, batches.get_state())
        if request == "set_state":
            batches.set_state(*arguments)
        return batches.get_state()
    except Exception as error:
        return error


def _ended() -> WorkerError:
    return WorkerError(
        "a process that makes batches has ended, perhaps because the memory was full. Lower data.workers"
    )
