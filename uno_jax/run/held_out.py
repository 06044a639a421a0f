"""Held-out losses of a run, of records and random draws that depend neither on the method nor on the run's seed."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from uno_jax.batch import Batch
from uno_jax.config import ConfigError
from uno_jax.data.config import DataConfig
from uno_jax.data.held_out import fill_rows, held_out_samples, spread
from uno_jax.data.mixture import Mixture, open_mixture, part_configs, trained_tasks
from uno_jax.data.rows import make_batch, pack_row
from uno_jax.data.samples import Skipped
from uno_jax.objectives.constant import HeldOut
from uno_jax.parallel.mesh import jit_replicated, own_rows
from uno_jax.run.config import RunConfig, run_layout
from uno_jax.run.context import RunContext, make_encode
from uno_jax.run.programs import step_config
from uno_jax.training.evaluation import PROMPT_DROPPED, constant_losses, mean_losses
from uno_jax.training.state import TrainState, merge
from uno_jax.training.step import make_evaluation_step

# Of all random numbers of held-out records, in every run. No run trains with it unless asked to.
HELD_OUT_SEED = 2**31 - 1


class HeldOutLosses(NamedTuple):
    """The held-out losses of a run."""

    measure: Callable[[TrainState], dict[str, float]]
    """Returns the losses of a state by name, and the number of `records` that they are means of."""
    constants: dict[str, float]
    """Losses of the best constant predictors, as `constant/<loss>`."""
    left_out: list[Skipped]
    """Samples that fit no row, or whose records cannot be read."""


class HeldOutBatches(NamedTuple):
    """This host's rows of the held-out records."""

    batches: list[Batch]
    """Encoded batches of `data.rows` rows on all hosts, in host memory. The last rows may be padding."""
    left_out: list[Skipped]
    """Samples that fit no row, or whose records cannot be read."""


def held_out_data(config: RunConfig, *, prompts: bool) -> DataConfig:
    """Returns the data config of held-out losses: without condition dropout, with all supervision of the method.

    Without `prompts`, every prompt is dropped. Other fields are as in training.
    """
    parts = {name: dataclasses.replace(part, captions="") for name, part in config.data.mixture.items()}
    return dataclasses.replace(
        config.data,
        mixture=parts,
        captions="",
        split=config.evaluation.split,
        seed=HELD_OUT_SEED,
        supervise="always",
        text_dropout=0.0 if prompts else 1.0,
        vae_dropout=0.0,
        vit_dropout=0.0,
    )


def open_held_out(config: RunConfig) -> Mixture:
    """Opens the held-out records of a run, without the captions that a model wrote.

    Raises:
      ConfigError: a dataset or the split does not exist. The message names the field.
    """
    return open_mixture(held_out_data(config, prompts=True), config.evaluation.split)


def held_out_numbers(config: RunConfig, mixture: Mixture) -> list[int]:
    """Returns the numbers of the records of held-out losses, which depend on the split and on the trained tasks.

    Args:
      config: the config of the run.
      mixture: from `open_held_out`.

    Raises:
      ConfigError: the split has no record of these tasks.
    """
    data, evaluation = config.data, config.evaluation
    numbers = spread(mixture.trained(), evaluation.records)
    if not numbers:
        parts = part_configs(data).values()
        where = " or ".join(part.directory for part in parts)
        names = " or ".join(dict.fromkeys(name for part in parts for name in trained_tasks(part)))
        raise ConfigError(
            f"config.evaluation.records is {evaluation.records}, but split {evaluation.split!r} of {where} "
            f"has no record of {names}: set it to 0"
        )
    return numbers


def held_out_batches(context: RunContext, data: DataConfig, numbers: Sequence[int]) -> HeldOutBatches:
    """Reads the held-out records, and returns this host's rows of them, encoded once and kept in host memory.

    Every host reads all records, and keeps its rows. The rows therefore do not depend on the number of hosts.
    """
    assert context.held_out is not None, "the held-out records are not open"
    layout, encode = run_layout(context.config), make_encode(context)
    samples = list(held_out_samples(context.held_out.read_with(data), numbers, layout, context.tokenizer))
    rows = list(fill_rows([sample for sample in samples if not isinstance(sample, Skipped)], data))
    rows += [[]] * (-len(rows) % data.rows)
    own = own_rows(np.arange(data.rows), context.mesh)
    batches = [
        make_batch([pack_row(rows[start + i], data.capacities, layout) for i in own])
        for start in range(0, len(rows), data.rows)
    ]
    left_out = [sample for sample in samples if isinstance(sample, Skipped)]
    return HeldOutBatches([jax.device_get(encode(batch)) for batch in batches], left_out)


def make_held_out_losses(context: RunContext, state: TrainState) -> HeldOutLosses:
    """Reads the held-out records and returns their losses. Targets of constant predictors are those of `state`.

    Raises:
      ConfigError: the split has no record of the tasks that are trained.
    """
    config, mesh = context.config, context.mesh
    assert context.held_out is not None, "the held-out records are not open"
    numbers = held_out_numbers(config, context.held_out)
    with_prompts, without_prompts = (
        held_out_batches(context, held_out_data(config, prompts=prompts), numbers) for prompts in (True, False)
    )
    step = make_evaluation_step(dataclasses.replace(step_config(config), seed=HELD_OUT_SEED))
    jitted = jit_replicated(step, mesh)
    params = merge(state.trainable, state.frozen)
    constants = constant_losses(HeldOut(with_prompts.batches, params, config.model, config.objective, mesh))
    count = float(len(numbers) - len(with_prompts.left_out))

    def measure(state: TrainState) -> dict[str, float]:
        params = merge(state.trainable, state.frozen)
        sums = functools.partial(jitted, params, anchor=state.anchor)
        losses = {
            prefix + name: value
            for prefix, held_out in (("", with_prompts), (PROMPT_DROPPED, without_prompts))
            for name, value in mean_losses(sums, held_out.batches, mesh).items()
        }
        return {"records": count, **losses}

    return HeldOutLosses(
        measure, {f"constant/{name}": value for name, value in constants.items()}, with_prompts.left_out
    )
