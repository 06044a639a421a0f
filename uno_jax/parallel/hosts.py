"""Several hosts that run one program: joining them, agreeing on a flag, gathering values, and failing together.

A host here is a JAX process: one per machine of a TPU slice, or any number on the CPU of one machine.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from uno_jax.config import ConfigError
from uno_jax.parallel.heartbeats import Heartbeats
from uno_jax.parallel.mesh import row_share
from uno_jax.process.errors import CheckpointError, CheckpointMismatch

Result = TypeVar("Result")

_FAILED = "uno_jax/failed"
_FINISHED = "uno_jax/finished"  # name of an exchange
_EXCHANGED = "uno_jax/exchanged/"
_POLL_SECONDS = 1.0
TIMEOUT = 90.0
"""Seconds after which a host that does not answer is given up, unless another limit is given."""
_MARGIN = 10.0
_LOST_SECONDS = 3 * _POLL_SECONDS


def join_hosts(
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    *,
    timeout: float = TIMEOUT,
) -> None:
    """Joins this process with those of the other hosts, if any. Must run before any other use of JAX.

    Without arguments and their environment variables, the hosts of a cluster that `jax.distributed` detects (such as
    Cloud TPU) find each other. Outside a cluster, and with `JAX_PLATFORMS=cpu`, this process runs alone.

    Args:
      coordinator: `host:port` of process 0; by default `JAX_COORDINATOR_ADDRESS`.
      processes: number of processes; by default `JAX_NUM_PROCESSES`.
      process: index of this process, from 0; by default `JAX_PROCESS_ID`.
      timeout: seconds after which a host that does not answer is given up (`failing_together`).

    Raises:
      ConfigError: only some of the arguments are given, they contradict each other, the environment describes an
        invalid cluster, or this version of JAX has no key-value store (`_store`).
    """
    coordinator = coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS")
    processes = _integer("JAX_NUM_PROCESSES") if processes is None else processes
    process = _integer("JAX_PROCESS_ID") if process is None else process
    given = {
        "--coordinator (JAX_COORDINATOR_ADDRESS)": coordinator,
        "--processes (JAX_NUM_PROCESSES)": processes,
        "--process (JAX_PROCESS_ID)": process,
    }
    missing = [name for name, value in given.items() if value is None]
    if 0 < len(missing) < len(given):
        raise ConfigError(f"missing {', '.join(missing)}: give all of {', '.join(given)}, or none")
    # JAX's preemption service would take over SIGTERM, but `agree` stops all hosts at the same step.
    jax.config.update("jax_enable_preemption_service", False)
    # JAX notices silent hosts too, but does not name them, so it comes second.
    initialize = functools.partial(jax.distributed.initialize, heartbeat_timeout_seconds=round(timeout + _MARGIN))
    if coordinator is not None and processes is not None and process is not None:
        _check_numbers(coordinator, processes, process)
        initialize(coordinator, processes, process, cluster_detection_method="deactivate")
        _store()
        return
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        return
    try:
        initialize()
    except ValueError as error:
        # JAX raises this message outside a cluster. Any other message means that the cluster settings are invalid.
        if "coordinator_address should be defined" in str(error):
            return
        raise ConfigError(
            f"failed to join the hosts of this cluster: {str(error).rstrip('.')}. JAX reads environment variables "
            "(JAX_*, TPU_*, MEGASCALE_*, SLURM_*, OMPI_*) and the metadata of a Cloud TPU: correct them, or unset the "
            "variables to run this process alone"
        ) from error
    _store()


def _store() -> Any:
    """The key-value store that joined hosts share. It has no public name in JAX; raises as `checked_store`."""
    try:
        from jax._src import distributed

        client: Any = distributed.global_state.client
    except (ImportError, AttributeError):
        client = None
    return checked_store(client)


def checked_store(client: Any) -> Any:
    """Returns the client of JAX's distributed service if it has the key-value store.

    Raises:
      ConfigError: this version of JAX does not have it where 0.10 to 0.12 have it.
    """
    needed = ("key_value_set", "key_value_try_get", "key_value_dir_get")
    if all(hasattr(client, name) for name in needed):
        return client
    raise ConfigError(
        f"JAX {jax.__version__} lacks the key-value store that hosts use to report failures to each other "
        "(jax._src.distributed.global_state.client): install JAX 0.10.2 to 0.12, or run on one host"
    )


def _check_numbers(coordinator: str, processes: int, process: int) -> None:
    if not re.fullmatch(r".+:\d+", coordinator):
        raise ConfigError(f"--coordinator (JAX_COORDINATOR_ADDRESS) is {coordinator!r}: expected host:port")
    if processes < 1:
        raise ConfigError(
            f"--processes (JAX_NUM_PROCESSES) is {processes}: expected the number of processes, at least 1"
        )
    if not 0 <= process < processes:
        raise ConfigError(f"--process (JAX_PROCESS_ID) is {process}: expected 0 to {processes - 1}")


def _integer(variable: str) -> int | None:
    text = os.environ.get(variable)
    try:
        return int(text) if text else None
    except ValueError:
        raise ConfigError(f"the environment variable {variable} is {text!r}: expected an integer") from None


@contextlib.contextmanager
def failing_together(timeout: float = TIMEOUT) -> Iterator[None]:
    """Wraps the whole program of each host: an exception on one host stops all, and each names the host that failed.

    The failing host prints the exception (or the message or status of a SystemExit) with its index and tells the
    others. Every process then exits at once with status 1, since the remaining ones would wait for each other forever.
    A killed or hanging host cannot tell the others. Host 0 names hosts that have not answered for `timeout` seconds; if
    it does not answer itself, JAX stops the others (docs/architecture.md). With a single host, exceptions propagate
    unchanged.
    """
    if not jax.distributed.is_initialized():
        yield
        return
    client = _store()
    me = f"host {jax.process_index()} of {jax.process_count()}"
    ended = threading.Event()
    beats = Heartbeats(client, jax.process_index(), jax.process_count())

    def watch() -> None:
        while not ended.wait(_POLL_SECONDS):
            message = _read_failure(client)
            with contextlib.suppress(Exception):  # no connection to host 0
                beats.beat()
                if message is None and jax.process_index() == 0 and (silent := beats.silent(timeout)):
                    message = f"{_named(silent)}: no answer for {timeout:g} s. Look at its log and its machine"
                    client.key_value_set(_FAILED, message)
            if message is not None and not ended.is_set():
                _exit(f"{me} stops because another host failed: {message}")

    watcher = threading.Thread(target=watch, name="watches the other hosts", daemon=True)
    watcher.start()
    try:
        yield
        # A finished host waits here, however long the others take, where it still notices a failure on another host.
        # JAX's own barrier, in `shutdown`, ends with an error after 300 seconds.
        exchange_json(_FINISHED, None)
    except BaseException as error:
        lost = _lost_hosts(client) if isinstance(error, Exception) else ""
        ended.set()
        if isinstance(error, SystemExit) and not isinstance(error.code, str):
            message = f"{me}: exit status {error.code}"
        elif isinstance(error, SystemExit):
            message = f"{me}: {error.code}"
        else:
            traceback.print_exc()
            message = f"{me}: {type(error).__name__}: {error}{lost}"
        # If a failure is already reported, this one is its consequence, and the first is the one to show.
        first = _read_failure(client)
        if first is None:
            with contextlib.suppress(Exception):
                client.key_value_set(_FAILED, message)
        print(message, file=sys.stderr, flush=True)
        _exit(f"{me} stops because another host failed: {first}" if first else "")
    ended.set()
    watcher.join()
    jax.distributed.shutdown()


def _lost_hosts(client: Any) -> str:
    """Says which hosts do not answer while this one fails, because that is the likely cause; "" if all answer."""
    beats = Heartbeats(client, jax.process_index(), jax.process_count())
    try:
        beats.silent(0)
        time.sleep(_LOST_SECONDS)
        silent = beats.silent(_LOST_SECONDS)
    except Exception:
        silent = [0]
    return f"\n{_named(silent)}: no answer for {_LOST_SECONDS:g} s, which may be the cause" if silent else ""


def _named(hosts: Sequence[int]) -> str:
    return f"host {', '.join(map(str, hosts))} of {jax.process_count()}"


def report_failure(message: str) -> None:
    """Tells the other hosts, if any, that this one ends, so that they end too. Any thread may call it."""
    if not jax.distributed.is_initialized():
        return
    with contextlib.suppress(Exception):
        _store().key_value_set(_FAILED, f"host {jax.process_index()} of {jax.process_count()}: {message}")
    _wait_for_readers()


def _read_failure(client: Any) -> str | None:
    """Message of the first host that failed; None if there is none, or if host 0, which stores it, is unreachable."""
    try:
        failure: str = client.key_value_try_get(_FAILED)
        return failure
    except Exception:  # not found or no connection: jaxlib has no more specific type
        return None


def _exit(message: str) -> None:
    if message:
        print(message, file=sys.stderr, flush=True)
    sys.stdout.flush()
    _wait_for_readers()
    # Not sys.exit: JAX would wait for all hosts at exit, and this may not be the main thread.
    os._exit(1)


def _wait_for_readers() -> None:
    """Host 0 stores the message, and the others poll for it."""
    if jax.process_index() == 0:
        time.sleep(2 * _POLL_SECONDS)


def agree(flag: Callable[[], bool]) -> Callable[[], bool]:
    """Starts a collective that checks whether `flag` holds on any host. The returned function waits for the answer.

    All hosts must call it together. The collective is queued with the work of the devices, so reading the answer a step
    later does not block. With a single host, the answer is `flag` itself, evaluated when it is read.
    """
    if jax.process_count() == 1:
        return flag
    local = np.asarray([flag()])
    answer = _any_host()(
        jax.make_array_from_process_local_data(NamedSharding(_host_mesh(), PartitionSpec("hosts")), local)
    )
    return lambda: bool(answer)


def gather_json(value: Any) -> list[Any]:
    """Gathers the JSON-serialisable values of all hosts, in host order, on every host."""
    if jax.process_count() == 1:
        return [value]
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    lengths = multihost_utils.process_allgather(np.asarray(len(text)))
    padded = np.zeros(int(np.max(lengths)), np.uint8)
    padded[: len(text)] = text
    rows = multihost_utils.process_allgather(padded)
    return [json.loads(bytes(row[: int(length)])) for row, length in zip(rows, lengths, strict=True)]


def exchange_json(name: str, value: Any) -> list[Any]:
    """Gathers the JSON-serialisable values of all hosts, in host order, on every host, however long a host takes.

    Unlike in `gather_json`, no device takes part, so that no limit of a collective ends the wait. Within
    `failing_together`, a host that fails or is lost ends it.

    Args:
      name: name of the exchange. A program uses each name once.
      value: the value of this host; a few megabytes at most.
    """
    if jax.process_count() == 1:
        return [value]
    store, folder = _store(), f"{_EXCHANGED}{name}/"
    store.key_value_set(f"{folder}{jax.process_index()}", json.dumps(value))
    while len(found := store.key_value_dir_get(folder)) < jax.process_count():
        time.sleep(_POLL_SECONDS)
    texts = {int(key.rpartition("/")[2]): text for key, text in found}
    return [json.loads(texts[host]) for host in sorted(texts)]


def together(function: Callable[[], Result]) -> Result:
    """Calls a function that works on this host alone. A CheckpointError on any host is raised on all of them."""
    result: Result | None = None
    problem: list[Any] | None = None
    try:
        result = function()
    except CheckpointError as error:
        problem = [isinstance(error, CheckpointMismatch), str(error)]
    found = next((each for each in gather_json(problem) if each is not None), None)
    if found is not None:
        raise (CheckpointMismatch if found[0] else CheckpointError)(found[1])
    return cast(Result, result)


def gather_shares(value: Any, mesh: Mesh) -> list[Any]:
    """Like `gather_json`, but with one value per row share, ordered by number: hosts with equal rows count once."""
    values = gather_json(value)
    owners = {row_share(mesh, process): process for process in reversed(range(len(values)))}
    return [values[owners[share]] for share in sorted(owners)]


@functools.cache
def _host_mesh() -> Mesh:
    """A mesh of one device per host."""
    first = {device.process_index: device for device in reversed(jax.devices())}
    return Mesh(np.array([first[process] for process in sorted(first)]), ("hosts",))


@functools.cache
def _any_host() -> Callable[[jax.Array], jax.Array]:
    return jax.jit(jnp.any, out_shardings=NamedSharding(_host_mesh(), PartitionSpec()))
