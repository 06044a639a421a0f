"""Frozen kernels of a run in int8. Their originals stay in host memory, so that checkpoints are as without int8."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
from flax.traverse_util import flatten_dict
from jax.sharding import Mesh

from uno_jax.config import ConfigError
from uno_jax.models.apart import like, stacked
from uno_jax.models.quantised import Originals, placed_quantised
from uno_jax.parallel.mesh import cpu_mesh, replicated
from uno_jax.parallel.parameters import tree_shardings, with_shardings
from uno_jax.run.config import RunConfig
from uno_jax.run.programs import abstract_state
from uno_jax.training.state import Params, TrainState, merge, partition


def reading_mesh(config: RunConfig, mesh: Mesh) -> Mesh:
    """Returns the mesh that parameters are read onto: the run's, or host memory if frozen kernels are to be rounded.

    Raises:
      ConfigError: there are several hosts, or JAX may not use the CPU.
    """
    if config.frozen_weights == "plain":
        return mesh
    if jax.process_count() > 1:
        raise ConfigError(
            f"config.frozen_weights is {config.frozen_weights!r}, which is for one host, and there are "
            f"{jax.process_count()}: set it to 'plain'"
        )
    return cpu_mesh()


def rounded_params(config: RunConfig, params: Params, mesh: Mesh) -> tuple[Params, Originals]:
    """Rounds the frozen kernels if the config says so, and places all on the mesh. Returns the originals, too."""
    if config.frozen_weights == "plain":
        return params, {}
    trained, frozen = partition(params, config.trainable)
    frozen, originals = _rounded(frozen, mesh)
    trained = jax.tree.map(jax.device_put, trained, tree_shardings(trained, mesh))
    return merge(trained, frozen), originals


def stored_state(config: RunConfig, mesh: Mesh) -> TrainState:
    """Returns shapes, dtypes and shardings of the state as it is read from a checkpoint (see `rounded_state`)."""
    if config.frozen_weights == "plain":
        return abstract_state(config, mesh)
    state = stacked(abstract_state(dataclasses.replace(config, frozen_weights="plain"), mesh))
    return dataclasses.replace(state, frozen=with_shardings(state.frozen, reading_mesh(config, mesh)))


def rounded_state(config: RunConfig, state: TrainState, mesh: Mesh) -> tuple[TrainState, Originals]:
    """Returns the state of the run for one that was read as `stored_state`, and the originals of what was rounded."""
    if config.frozen_weights == "plain":
        return state, {}
    frozen, originals = _rounded(state.frozen, mesh)
    return like(dataclasses.replace(state, frozen=frozen), abstract_state(config, mesh)), originals


def _rounded(frozen: Params, mesh: Mesh) -> tuple[Params, Originals]:
    place: Any = replicated(cpu_mesh())
    before = flatten_dict(frozen)
    rounded = placed_quantised(frozen, mesh, free=False)
    after = flatten_dict(rounded)
    return rounded, {path: jax.device_put(x, place) for path, x in before.items() if after[path].dtype != x.dtype}
