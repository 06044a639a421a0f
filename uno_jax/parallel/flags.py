"""The command-line flags of the mesh and of the hosts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from absl import flags

from uno_jax.parallel.axes import MESH_AXES
from uno_jax.parallel.hosts import TIMEOUT, failing_together, join_hosts
from uno_jax.parallel.mesh import MeshConfig
from uno_jax.process.errors import exit_with_message
from uno_jax.process.flags import define_fields, field_values, section_of

_MESH = "mesh."


def define_mesh(flag_values: flags.FlagValues, devices: str) -> None:
    """Defines `--mesh.AXIS` for every mesh axis; `devices` names the devices of the mesh in the help text."""
    notes = {axis: f"{devices} along the mesh axis {axis}; -1: the remaining ones" for axis in MESH_AXES}
    define_fields(flag_values, MeshConfig(), notes, "mesh", _MESH)


def mesh_config(flag_values: flags.FlagValues) -> MeshConfig:
    """Reads the mesh config from the flags of `define_mesh`."""
    return MeshConfig(**field_values(flag_values, MESH_AXES, _MESH))


def define_hosts(flag_values: flags.FlagValues) -> None:
    """Defines the flags for joining hosts outside a known cluster (`join_hosts`)."""
    place = section_of(flag_values, "hosts")
    note = "host:port of process 0; needed for several hosts outside a cluster that JAX detects, such as Cloud TPU"
    flags.DEFINE_string("coordinator", None, note, **place)
    flags.DEFINE_integer("processes", None, "with --coordinator: number of processes", **place)
    flags.DEFINE_integer("process", None, "with --coordinator: index of this process, from 0", **place)
    note = "seconds after which a host that does not answer is given up, and the others end"
    flags.DEFINE_float("host_timeout", TIMEOUT, note, lower_bound=5.0, **place)


@contextlib.contextmanager
def joined_hosts(flag_values: flags.FlagValues) -> Iterator[None]:
    """Joins the other hosts by the flags of `define_hosts`. An error on one host stops all (`failing_together`)."""
    timeout = flag_values.host_timeout
    join_hosts(flag_values.coordinator, flag_values.processes, flag_values.process, timeout=timeout)
    with failing_together(timeout), exit_with_message():
        yield
