"""Estimates of a training run: its real train step is compiled for a slice, without the hardware."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from uno_jax.attention.kernel import TooManyBlocks
from uno_jax.config import ConfigError
from uno_jax.data.check import check_data_config
from uno_jax.models.config import training_layout
from uno_jax.objectives.losses import needs
from uno_jax.parallel.axes import TABLE
from uno_jax.parallel.mesh import check_rows, make_mesh, row_share
from uno_jax.planning.chips import Slice, describe_devices
from uno_jax.planning.collectives import Collective, bytes_by_axes, find_collectives
from uno_jax.planning.compiler import compile_once
from uno_jax.planning.example import Example
from uno_jax.planning.executed import Executed, executed_flops
from uno_jax.planning.hlo import parse_hlo
from uno_jax.planning.largest_row import abstract_batch, example_row, missing_room
from uno_jax.planning.memory import Memory, compiled_memory, exhausted_memory, split_state, tree_bytes
from uno_jax.planning.model_flops import model_flops
from uno_jax.planning.residuals import saved_activation_bytes
from uno_jax.planning.roofline import Roofline, roofline
from uno_jax.planning.traffic import hbm_bytes
from uno_jax.run.config import RunConfig, check_config, run_layout
from uno_jax.run.programs import abstract_state, config_errors, jit_step, step_config
from uno_jax.training.initialise import abstract_autoencoder
from uno_jax.training.state import TrainState
from uno_jax.training.step import make_gradient_probe, make_train_step


@dataclass(frozen=True)
class Compiled:
    """Results of a compilation."""

    memory: Memory
    seconds: float
    collectives: Sequence[Collective]
    """Empty if the program does not fit."""
    hbm_bytes: int
    """Bytes read and written by one chip per call; 0 if the program does not fit."""
    host_memory: int
    """Peak host memory of the compiling process, in bytes."""

    @property
    def collective_bytes(self) -> Mapping[str, int]:
        """Bytes received by one chip per call, by mesh axes."""
        return bytes_by_axes(self.collectives)


@dataclass(frozen=True)
class Estimate:
    """Memory and speed of a training run."""

    config: RunConfig
    target: Slice
    mesh_axes: Mapping[str, int]
    """Sizes of the mesh axes, over all slices."""
    task: str
    widened: Mapping[str, int]
    """Fields of `config.data` that were too small for an edit, with the lengths used instead."""
    example: Example
    visited: float
    """Share of the decoder's attention blocks that the kernel computes for `example`, as counted in `executed`."""
    state_bytes: Mapping[str, int]
    """Bytes on one chip, by part (`memory.split_state`)."""
    saved_activations: int
    """Activations saved for the backward pass, in bytes on one chip (approximate)."""
    needed: Mapping[str, float]
    """Model FLOPs of a step, by part."""
    executed: Executed
    compiled: Compiled
    probe: Memory | None
    """Memory of the gradient probe. None if the run has no probe or its step does not fit."""
    bound: Roofline | None
    """None if the step does not fit."""

    @property
    def memory(self) -> Memory:
        """Memory of the program that does not fit, or else of the one with the largest peak.

        Evaluation is the forward pass of the step and needs less.
        """
        programs = [memory for memory in (self.compiled.memory, self.probe) if memory]
        return max(programs, key=lambda memory: (not memory.fits, memory.peak))

    @property
    def rows_per_part(self) -> int:
        """Rows of a batch per data-parallel shard."""
        return self.config.data.rows // math.prod(self.mesh_axes[axis] for axis in TABLE["batch"])

    @property
    def images(self) -> int:
        """Images per step, on all chips."""
        return self.config.data.rows * self.example.images

    @property
    def tokens(self) -> int:
        """Tokens per step, on all chips, without padding."""
        return self.config.data.rows * sum(self.example.tokens().values())


def make_estimate(config: RunConfig, target: Slice, task: str = "text_to_image", cache: Path | None = None) -> Estimate:
    """Traces, lowers and compiles the train step of `config` for `target`. No array is allocated.

    Args:
      config: config of the run.
      target: the slice.
      task: the task of the samples that fill the rows. `text_to_image` samples must fit; for `editing` samples the rows
        are lengthened if necessary.
      cache: directory of cached compiler reports (`compiler.compile_once`), or None.

    Raises:
      ConfigError: the config is invalid, or does not suit the slice or its number of hosts.
    """
    check_config(config)
    widened = missing_room(config.data, config.model, task) if task == "editing" else {}
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, **widened))
    mesh = make_mesh(config.mesh, describe_devices(target))
    config_errors(check_data_config, config.data, training_layout(config.model), (task,), row_share(mesh, 0).total)
    check_rows(config.data.rows, mesh, field="config.data.rows")
    check_rows(config.data.rows // config.optimizer.accumulation, mesh, field="config.data.rows / accumulation")
    state = abstract_state(config, mesh)
    example = example_row(config.data, config.model, task)
    batch = abstract_batch(config, mesh)
    step = jit_step(make_train_step(step_config(config)), state, mesh)
    traced = trace(step, state, batch)
    grids, visited = example.visited_share(config.model.decoder, mesh.shape)
    executed = executed_flops(traced.jaxpr, lambda name, grid: visited if grid[-2:] in grids else 1.0)
    autoencoder = tree_bytes(abstract_autoencoder(config.model))
    compiled = compile_for(traced, mesh, target, autoencoder, cache)
    bound, probe = None, None
    if compiled.memory.fits:
        if config.objective.balance.every:
            traced_probe = trace(jit_step(make_gradient_probe(step_config(config)), state, mesh), state, batch)
            probe = compile_for(traced_probe, mesh, target, autoencoder, cache).memory
        bound = roofline(target, executed.total, compiled.hbm_bytes, compiled.collective_bytes)
    return Estimate(
        config=config,
        target=target,
        mesh_axes=dict(mesh.shape),
        task=task,
        widened=widened,
        example=example,
        visited=visited,
        state_bytes=split_state(state),
        saved_activations=saved_activation_bytes(traced.jaxpr, mesh.shape),
        needed=_of_all_rows(state, example, config),
        executed=executed,
        compiled=compiled,
        probe=probe,
        bound=bound,
    )


def trace(program: Any, *arguments: Any) -> Any:
    """Traces a jitted program for abstract arguments.

    Raises:
      ConfigError: one chip has more rows and tokens than its attention kernel supports.
    """
    try:
        return program.trace(*arguments)
    except TooManyBlocks as error:
        raise ConfigError(str(error)) from error


def compile_for(traced: Any, mesh: Mesh, target: Slice, autoencoder: int, cache: Path | None) -> Compiled:
    """Compiles a traced program for the devices of `mesh`. A program that does not fit is a result, not an error.

    Args:
      traced: the traced program.
      mesh: the mesh that it was traced for.
      target: the slice.
      autoencoder: parameters of the autoencoder on every chip, in bytes.
      cache: directory of cached compiler reports (`compiler.compile_once`), or None.
    """
    report = compile_once(traced.lower(), mesh, cache)
    if report.refusal:
        memory = exhausted_memory(report.refusal, autoencoder)
        return Compiled(memory, report.seconds, (), 0, report.host_memory)
    memory = compiled_memory(report.memory, target.chip.hbm_bytes, autoencoder)
    program = parse_hlo(report.text)
    slices = [getattr(device, "slice_index", 0) or 0 for device in mesh.devices.flat]
    collectives = find_collectives(program, dict(mesh.shape), slices)
    return Compiled(memory, report.seconds, collectives, hbm_bytes(program), report.host_memory)


def _of_all_rows(state: TrainState, example: Example, config: RunConfig) -> dict[str, float]:
    given = run_layout(config).features > 0
    one = model_flops(state.trainable, state.frozen, example, config.model, needs(config.objective), features=given)
    return {part: flops * config.data.rows for part, flops in one.items()}


def run_hours(estimate: Estimate, fraction: float) -> float:
    """Returns the duration of the run in hours, at a fraction of the roofline. NaN if the step does not fit."""
    return math.nan if estimate.bound is None else estimate.config.steps * estimate.bound.seconds / fraction / 3600
