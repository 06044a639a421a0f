"""Estimates with made-up memory needs."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from uno_jax.config import from_config_dict
from uno_jax.parallel.axes import MESH_AXES
from uno_jax.parallel.mesh import make_mesh
from uno_jax.planning.chips import GIB, Slice, parse_slice
from uno_jax.planning.estimate import Compiled, Estimate
from uno_jax.planning.executed import Executed
from uno_jax.planning.largest_row import example_row
from uno_jax.planning.memory import Memory, split_state
from uno_jax.run.config import RunConfig
from uno_jax.run.programs import abstract_state

TARGET = parse_slice("v5e:1x1")
ONE_DEVICE = dict.fromkeys(MESH_AXES, 1)


def read(name: str) -> RunConfig:
    config = importlib.import_module(f"configs.{name}").get_config()
    config.mesh.update(data=1, fsdp=-1)
    return from_config_dict(config, RunConfig)


def estimate_of(
    config: RunConfig, gib: float, target: Slice = TARGET, mesh_axes: Mapping[str, int] = ONE_DEVICE
) -> Estimate:
    """An estimate that needs `gib` of memory, with an unsharded state."""
    state = abstract_state(config, make_mesh(config.mesh))
    fits = gib * GIB <= TARGET.chip.hbm_bytes
    memory = Memory(int(gib * GIB), 0, 0, 0, 0, fits)
    return Estimate(
        config=config,
        target=target,
        mesh_axes=mesh_axes,
        task="text_to_image",
        widened={},
        example=example_row(config.data, config.model),
        visited=1.0,
        state_bytes=split_state(state),
        saved_activations=0,
        needed={},
        executed=Executed(),
        compiled=Compiled(memory, 0.0, (), 0, GIB),
        probe=None,
        bound=None,
    )
