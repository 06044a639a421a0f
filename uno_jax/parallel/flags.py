"""The command-line flags of the mesh and of the hosts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from absl import flags

from uno_jax.parallel.axes import MESH_AXES
from uno_jax.parallel.hosts import failing_together, join_hosts
from uno_jax.parallel.mesh import MeshConfig
from uno_jax.process.errors import exit_with_message
from uno_jax.process.flags import define_fields, field_values, section_of

_MESH = "mesh."


def define_mesh(flag_values: flags.FlagValues, devices: str) -> None:
    """Defines `--mesh.AXIS` for every mesh axis; `devices` says in the help which devices the mesh is made of."""
    notes = {axis: f"{devices} along the mesh axis {axis}; -1: those that are left" for axis in MESH_AXES}
    define_fields(flag_values, MeshConfig(), notes, "mesh", _MESH)


def mesh_config(flag_values: flags.FlagValues) -> MeshConfig:
    """The mesh that the flags of `define_mesh` give."""
    return MeshConfig(**field_values(flag_values, MESH_AXES, _MESH))


def define_hosts(flag_values: flags.FlagValues) -> None:
    """Defines the flags by which hosts join each other where no cluster tells them (`join_hosts`)."""
    place = section_of(flag_values, "hosts")
    note = "host:port of process 0, where several hosts do not find each other (on a Cloud TPU they do)"
    flags.DEFINE_string("coordinator", None, note, **place)
    flags.DEFINE_integer("processes", None, "with --coordinator: how many there are", **place)
    flags.DEFINE_integer("process", None, "with --coordinator: which this is, from 0", **place)


@contextlib.contextmanager
def joined_hosts(flag_values: flags.FlagValues) -> Iterator[None]:
    """Joins the other hosts by the flags of `define_hosts`; an error on one host ends all (`failing_together`)."""
    join_hosts(flag_values.coordinator, flag_values.processes, flag_values.process)
    with failing_together(), exit_with_message():
        yield
