"""Several hosts that run one program: joining them, agreeing on something, and failing together.

A host here is a JAX process: one for each machine of a TPU slice, or any number on one machine's CPU.
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
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from uno_jax.config import ConfigError
from uno_jax.parallel.mesh import row_share

_FAILED = "uno_jax/failed"
_FINISHED = "uno_jax/finished"
_POLL_SECONDS = 1.0
_FINISH_SECONDS = 300
"""Between the first host that is through and the last; as long as JAX waits for all to shut down."""


def join_hosts(coordinator: str | None = None, processes: int | None = None, process: int | None = None) -> None:
    """Joins this process with those of the other hosts, if there are any; before anything else of JAX.

    Without arguments, and their environment variables neither: on a Cloud TPU (and wherever else `jax.distributed`
    knows the cluster) the hosts find each other; with `JAX_PLATFORMS=cpu`, and on a machine of its own, this process is
    the only one.

    Args:
      coordinator: `host:port` of process 0; by default `JAX_COORDINATOR_ADDRESS`.
      processes: how many there are; by default `JAX_NUM_PROCESSES`.
      process: number of this one, from 0; by default `JAX_PROCESS_ID`.

    Raises:
      ConfigError: some of the arguments are given, others not, or they do not go together; or none, and what the
        environment says of the cluster makes no sense; or this version of JAX has no key-value store (`_store`).
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
        raise ConfigError(f"{', '.join(missing)}: missing; give all of {', '.join(given)} or none")
    # Its notifier takes SIGTERM for itself; `agree` is what stops all hosts at the same step.
    jax.config.update("jax_enable_preemption_service", False)
    if coordinator is not None and processes is not None and process is not None:
        _check_numbers(coordinator, processes, process)
        jax.distributed.initialize(coordinator, processes, process, cluster_detection_method="deactivate")
        _store()
        return
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        return
    try:
        jax.distributed.initialize()
    except ValueError as error:
        # This is how JAX says that it knows of no cluster here. Any other is one that it cannot make out.
        if "coordinator_address should be defined" in str(error):
            return
        raise ConfigError(
            f"the hosts of this cluster cannot be joined: {str(error).rstrip('.')}. JAX knows of them by environment "
            "variables (JAX_*, TPU_*, MEGASCALE_*, SLURM_*, OMPI_*) and a Cloud TPU's metadata: correct what is wrong "
            "there, or unset the variables where this process is to run alone"
        ) from error
    _store()


def _store() -> Any:
    """The key-value store that joined hosts share.

    Raises:
      ConfigError: this version of JAX does not have it where 0.10 to 0.12 have it; it has no public name.
    """
    try:
        from jax._src import distributed

        client: Any = distributed.global_state.client
        if all(hasattr(client, name) for name in ("key_value_set", "key_value_try_get", "wait_at_barrier")):
            return client
    except (ImportError, AttributeError):
        pass
    raise ConfigError(
        f"JAX {jax.__version__} lacks the key-value store through which several hosts tell each other of a failure "
        "(jax._src.distributed.global_state.client): install JAX 0.10.2 to 0.12, or run on one host"
    )


def _check_numbers(coordinator: str, processes: int, process: int) -> None:
    if not re.fullmatch(r".+:\d+", coordinator):
        raise ConfigError(f"--coordinator (JAX_COORDINATOR_ADDRESS) is {coordinator!r}: expected host:port")
    if processes < 1:
        raise ConfigError(f"--processes (JAX_NUM_PROCESSES) is {processes}: expected how many there are, 1 or more")
    if not 0 <= process < processes:
        raise ConfigError(f"--process (JAX_PROCESS_ID) is {process}: expected 0 to {processes - 1}, one of {processes}")


def _integer(variable: str) -> int | None:
    text = os.environ.get(variable)
    try:
        return int(text) if text else None
    except ValueError:
        raise ConfigError(f"the environment variable {variable} is {text!r}, not an integer") from None


@contextlib.contextmanager
def failing_together() -> Iterator[None]:
    """Around the whole program of each host: an exception in one of them ends all, and says on each which one it was.

    It (SystemExit with a message or an error code included) is printed with this host's number, the other hosts are
    told, and every process exits with status 1 at once: they could only wait for each other. A host that is killed can
    tell nobody; JAX ends the others (docs/architecture.md). One host alone raises as ever.
    """
    if not jax.distributed.is_initialized():
        yield
        return
    client = _store()
    me = f"host {jax.process_index()} of {jax.process_count()}"
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(_POLL_SECONDS):
            message = _read_failure(client)
            if message is not None and not ended.is_set():
                _exit(f"{me} stops, because another failed: {message}")

    watcher = threading.Thread(target=watch, name="watches the other hosts", daemon=True)
    watcher.start()
    try:
        yield
        # A host that is through waits here, where it still hears of one that fails after it.
        client.wait_at_barrier(_FINISHED, _FINISH_SECONDS * 1000)
    except BaseException as error:
        ended.set()
        if isinstance(error, SystemExit) and not isinstance(error.code, str):
            message = f"{me}: exit status {error.code}"
        elif isinstance(error, SystemExit):
            message = f"{me}: {error.code}"
        else:
            traceback.print_exc()
            message = f"{me}: {type(error).__name__}: {error}"
        # Told already: then this is a consequence of another host's failure, which is what people want to read.
        first = _read_failure(client)
        if first is None:
            with contextlib.suppress(Exception):
                client.key_value_set(_FAILED, message)
        print(message, file=sys.stderr, flush=True)
        _exit(f"{me} stops, because another failed: {first}" if first else "")
    ended.set()
    watcher.join()
    jax.distributed.shutdown()


def _read_failure(client: Any) -> str | None:
    """What a host that failed has said; None if none has, or if host 0, which knows, cannot be reached."""
    try:
        failure: str = client.key_value_try_get(_FAILED)
        return failure
    except Exception:  # jaxlib has no finer type: not found, or no connection
        return None


def _exit(message: str) -> None:
    if message:
        print(message, file=sys.stderr, flush=True)
    sys.stdout.flush()
    if jax.process_index() == 0:
        # What was said is kept here, and the others ask for it every so often.
        time.sleep(2 * _POLL_SECONDS)
    # Not sys.exit: at exit JAX waits for all hosts, and this thread may not be the main one.
    os._exit(1)


def agree(flag: Callable[[], bool]) -> Callable[[], bool]:
    """Starts asking all hosts whether `flag` holds on any of them; what it returns waits for the answer.

    All hosts must ask together. The answer travels with the devices' work, so nobody waits who reads it a step later.
    One host alone asks nobody: its answer is the flag when it is read.
    """
    if jax.process_count() == 1:
        return flag
    local = np.asarray([flag()])
    answer = _any_host()(
        jax.make_array_from_process_local_data(NamedSharding(_host_mesh(), PartitionSpec("hosts")), local)
    )
    return lambda: bool(answer)


def gather_json(value: Any) -> list[Any]:
    """Every host's value (what JSON can hold), in the order of the hosts, on every host."""
    if jax.process_count() == 1:
        return [value]
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    lengths = multihost_utils.process_allgather(np.asarray(len(text)))
    padded = np.zeros(int(np.max(lengths)), np.uint8)
    padded[: len(text)] = text
    rows = multihost_utils.process_allgather(padded)
    return [json.loads(bytes(row[: int(length)])) for row, length in zip(rows, lengths, strict=True)]


def gather_shares(value: Any, mesh: Mesh) -> list[Any]:
    """As `gather_json`, once for hosts that make the same rows of a batch, in the order of their shares' numbers."""
    values = gather_json(value)
    owners = {row_share(mesh, process): process for process in reversed(range(len(values)))}
    return [values[owners[share]] for share in sorted(owners)]


@functools.cache
def _host_mesh() -> Mesh:
    """One device of each host."""
    first = {device.process_index: device for device in reversed(jax.devices())}
    return Mesh(np.array([first[process] for process in sorted(first)]), ("hosts",))


@functools.cache
def _any_host() -> Callable[[jax.Array], jax.Array]:
    return jax.jit(jnp.any, out_shardings=NamedSharding(_host_mesh(), PartitionSpec()))
