"""The plan of a run: its real train step, compiled for a slice that is not there, and what follows from it."""

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
from uno_jax.models.config import layout_of
from uno_jax.parallel.axes import TABLE
from uno_jax.parallel.mesh import check_rows, make_mesh, row_share
from uno_jax.planning.chips import Slice, describe_devices
from uno_jax.planning.collectives import Collective, bytes_by_axes, find_collectives
from uno_jax.planning.compiler import compile_once
from uno_jax.planning.example import Example, abstract_batch, example_row, missing_room
from uno_jax.planning.executed import Executed, executed_flops
from uno_jax.planning.hlo import parse_hlo
from uno_jax.planning.memory import Memory, compiled_memory, exhausted_memory, split_state, tree_bytes
from uno_jax.planning.model_flops import model_flops
from uno_jax.planning.residuals import saved_activation_bytes
from uno_jax.planning.roofline import Roofline, roofline
from uno_jax.planning.traffic import hbm_bytes
from uno_jax.run.config import RunConfig, check_config
from uno_jax.run.programs import abstract_state, config_errors, jit_step, step_config
from uno_jax.training.initialise import abstract_autoencoder
from uno_jax.training.state import TrainState
from uno_jax.training.step import make_gradient_probe, make_train_step


@dataclass(frozen=True)
class Compiled:
    """What compiling gave."""

    memory: Memory
    seconds: float
    collectives: Sequence[Collective]
    """Empty where it does not fit."""
    hbm_bytes: int
    """Read and written by one chip in a call; 0 where it does not fit."""
    host_memory: int
    """The most bytes of the host's memory that the process had had when it was compiled."""

    @property
    def collective_bytes(self) -> Mapping[str, int]:
        """Received by one chip in a call, by mesh axes."""
        return bytes_by_axes(self.collectives)


@dataclass(frozen=True)
class Estimate:
    """What a run needs, and how fast it can be."""

    config: RunConfig
    target: Slice
    mesh_axes: Mapping[str, int]
    """Sizes of the mesh axes, over all slices."""
    task: str
    widened: Mapping[str, int]
    """Regions of a row that were too short for an edit, and the lengths that they were given, as fields of
    `config.data`."""
    example: Example
    visited: float
    """Share of the decoder's attention blocks that the kernel computes on such a row; executed FLOPs count these."""
    state_bytes: Mapping[str, int]
    """On one chip, by part (`memory.split_state`)."""
    saved_activations: int
    """On one chip, between forward and backward pass: an estimate."""
    needed: Mapping[str, float]
    """Model FLOPs of a step by part."""
    executed: Executed
    compiled: Compiled
    probe: Memory | None
    """Of the gradient probe; None where the run has none, or its step does not fit."""
    bound: Roofline | None
    """None where the step does not fit."""

    @property
    def memory(self) -> Memory:
        """Of the program of the run that does not fit, or needs most. An evaluation is the step's forward pass, and
        needs less."""
        programs = [memory for memory in (self.compiled.memory, self.probe) if memory]
        return max(programs, key=lambda memory: (not memory.fits, memory.peak))

    @property
    def rows_per_part(self) -> int:
        """Rows of a batch on each part of the mesh that has rows of its own."""
        return self.config.data.rows // math.prod(self.mesh_axes[axis] for axis in TABLE["batch"])

    @property
    def images(self) -> int:
        """Of one step, on all chips."""
        return self.config.data.rows * self.example.images

    @property
    def tokens(self) -> int:
        """Of one step, on all chips, without padding."""
        return self.config.data.rows * sum(self.example.tokens().values())


def make_estimate(config: RunConfig, target: Slice, task: str = "text_to_image", kept: Path | None = None) -> Estimate:
    """Traces, lowers and compiles the train step of `config` for `target`; no array is made.

    Args:
      config: of the run.
      target: the slice.
      task: what the rows are full of: text_to_image, for which they must have room, or editing, for which they are
        given room where they have none.
      kept: the folder of what earlier starts compiled; None to compile in any case.

    Raises:
      ConfigError: the config cannot be run on that slice, by all hosts that it has.
    """
    check_config(config)
    widened = missing_room(config.data, config.model, task) if task == "editing" else {}
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, **widened))
    mesh = make_mesh(config.mesh, describe_devices(target))
    config_errors(check_data_config, config.data, layout_of(config.model), (task,), row_share(mesh, 0).total)
    check_rows(config.data.rows, mesh, field="config.data.rows")
    check_rows(config.data.rows // config.optimizer.accumulation, mesh, field="config.data.rows / accumulation")
    state = abstract_state(config, mesh)
    example = example_row(config.data, config.model, task)
    batch = abstract_batch(config.data, config.model, mesh)
    step = jit_step(make_train_step(step_config(config)), state, mesh)
    traced = trace(step, state, batch)
    grids, visited = example.visited_share(config.model.decoder, mesh.shape)
    executed = executed_flops(traced.jaxpr, lambda name, grid: visited if grid[-2:] in grids else 1.0)
    autoencoder = tree_bytes(abstract_autoencoder(config.model))
    compiled = compile_for(traced, mesh, target, autoencoder, kept)
    bound, probe = None, None
    if compiled.memory.fits:
        if config.objective.balance.every:
            traced_probe = trace(jit_step(make_gradient_probe(step_config(config)), state, mesh), state, batch)
            probe = compile_for(traced_probe, mesh, target, autoencoder, kept).memory
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
    """A jitted program traced for shapes.

    Raises:
      ConfigError: one chip has more rows and tokens than its attention kernel can list the blocks of.
    """
    try:
        return program.trace(*arguments)
    except TooManyBlocks as error:
        raise ConfigError(str(error)) from error


def compile_for(traced: Any, mesh: Mesh, target: Slice, autoencoder: int, kept: Path | None) -> Compiled:
    """Compiles a traced program for the devices of `mesh`; that it does not fit is a result, not an error.

    `autoencoder`: its bytes, which lie on every chip beside the program. `kept`: the folder of what earlier starts
    compiled (`compiler.compile_once`).
    """
    report = compile_once(traced.lower(), mesh, kept)
    if report.refusal:
        memory = exhausted_memory(report.refusal, autoencoder)
        return Compiled(memory, report.seconds, (), 0, report.host_memory)
    memory = compiled_memory(report.memory, target.chip.hbm_bytes, autoencoder)
    program = parse_hlo(report.text)
    slices = [getattr(device, "slice_index", 0) or 0 for device in mesh.devices.flat]
    collectives = find_collectives(program, dict(mesh.shape), slices)
    return Compiled(memory, report.seconds, collectives, hbm_bytes(program), report.host_memory)


def _of_all_rows(state: TrainState, example: Example, config: RunConfig) -> dict[str, float]:
    answers = step_config(config).answers
    one = model_flops(state.trainable, state.frozen, example, config.model, answers=answers)
    return {part: flops * config.data.rows for part, flops in one.items()}


def run_hours(estimate: Estimate, fraction: float) -> float:
    """Hours of the configured run at a fraction of the roofline; not a number where it does not fit."""
    return math.nan if estimate.bound is None else estimate.config.steps * estimate.bound.seconds / fraction / 3600
