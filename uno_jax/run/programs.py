"""The train state and the jitted step of a run. `uno_jax.aot` compiles the same programs for chips that are absent."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import jax
from jax.sharding import Mesh

from uno_jax.config import ConfigError
from uno_jax.data.mixture import part_configs
from uno_jax.models.apart import arranged
from uno_jax.models.quantised import quantised
from uno_jax.objectives.losses import measured_losses, needs
from uno_jax.parallel.axes import on_mesh
from uno_jax.parallel.mesh import batch_sharding, replicated
from uno_jax.parallel.parameters import tree_shardings
from uno_jax.run.config import RunConfig
from uno_jax.run.start import abstract_run_params
from uno_jax.training.optimizer import make_optimizer
from uno_jax.training.state import Params, TrainState, create_state, merge, partition
from uno_jax.training.step import StepConfig

Result = TypeVar("Result")


def config_errors(function: Callable[..., Result], *args: Any) -> Result:
    """Calls `function` and turns a ValueError into a ConfigError, for modules that know nothing of configs."""
    try:
        return function(*args)
    except ValueError as error:
        raise ConfigError(f"config: {error}") from error


def step_config(config: RunConfig) -> StepConfig:
    """Returns the config of the run's steps."""
    return StepConfig(
        config.model,
        config.objective,
        config.optimizer,
        config.steps,
        config.seed,
        config.limits,
        datasets=tuple(part_configs(config.data)) if config.data.mixture else (),
    )


def new_state(config: RunConfig, params: Params, mesh: Mesh) -> TrainState:
    """Creates the state before the first step, sharded over the mesh. Donates `params`."""
    create = _state_maker(config)
    params = arranged(params, config.model.decoder, free=True)  # inside of jit, slices could not reuse what is donated
    shardings = _state_shardings(config, config_errors(jax.eval_shape, create, params), mesh)
    state: TrainState = jax.jit(create, out_shardings=shardings, donate_argnums=0)(params)
    return state


def abstract_state(config: RunConfig, mesh: Mesh) -> TrainState:
    """Returns shapes, dtypes and shardings of the state."""
    create = _state_maker(config)

    def rounded(params: Params) -> TrainState:
        trained, frozen = partition(params, config.trainable)
        return create(merge(trained, quantised(frozen)))

    chosen = create if config.frozen_weights == "plain" else rounded
    state = config_errors(jax.eval_shape, chosen, abstract_run_params(config, mesh))
    shardings = _state_shardings(config, state, mesh)
    placed: TrainState = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, shardings)
    return placed


def jit_step(step: Callable[..., Any], state: TrainState, mesh: Mesh) -> Any:
    """Jits `step(state, batch) -> (state, metrics)` for the mesh, with the state donated.

    Args:
      step: from `make_train_step` or `make_gradient_probe`.
      state: arrays, or `jax.ShapeDtypeStruct` with shardings. The new state has the same shardings.
      mesh: the device mesh.
    """
    states = jax.tree.map(lambda x: x.sharding, state)
    return jax.jit(
        on_mesh(mesh)(step),
        in_shardings=(states, batch_sharding(mesh)),
        out_shardings=(states, replicated(mesh)),
        donate_argnums=0,
    )


def _state_shardings(config: RunConfig, state: TrainState, mesh: Mesh) -> Any:
    shardings = tree_shardings(state, mesh)
    if config.optimizer.ema_memory == "device":
        return shardings
    ema = jax.tree.map(lambda sharding: sharding.with_memory_kind("pinned_host"), shardings.ema)
    return dataclasses.replace(shardings, ema=ema)


def _state_maker(config: RunConfig) -> Callable[[Params], TrainState]:
    optimizer = config_errors(make_optimizer, config.optimizer, config.steps)
    return lambda params: create_state(
        arranged(params, config.model.decoder),
        config.trainable,
        optimizer,
        ema=config.optimizer.ema_decay > 0,
        anchor=config.frozen_dtype if "start" in needs(config.objective) else None,
        measured=measured_losses(config.objective),
        recent_losses=0 if config.limits.spike == "off" else config.limits.spike_window,
    )
