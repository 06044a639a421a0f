"""Checks a dataset as a run would read it, before the run is paid for: `prepare_data validate`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from uno_jax.data.buffers import Buffers, check_share, steps_per_epoch
from uno_jax.data.config import DataConfig
from uno_jax.data.mixture import check_files
from uno_jax.data.pipeline import TooManySkipped
from uno_jax.data.proposal import FULL, real_latents
from uno_jax.data.survey import Survey, survey
from uno_jax.process.errors import UserError
from uno_jax.run.config import RunConfig, check_config, run_layout, with_local_paths
from uno_jax.run.dataset import groups_of, limit_of, longer_for, open_data, propose_for, run_tokenizer
from uno_jax.run.held_out import held_out_numbers, open_held_out
from uno_jax.run.programs import config_errors
from uno_jax.run.start import run_source

Begin = Callable[[str, int], Callable[[], None]]
"""Shows a stage with a number of items, and returns the function to call after each."""


@dataclass(frozen=True)
class Validation:
    """What was found in the split of a dataset that a run trains on."""

    config: RunConfig
    survey: Survey
    limit: str
    """What keeps further samples out of a row, from `limit_of`; "" if no sample fits."""
    steps_per_epoch: dict[str, float]
    """Steps in which a run draws each group of records once, from `buffers.steps_per_epoch`."""
    problems: list[str]
    """What would break the run."""
    proposed: RunConfig | None
    """The config with other lengths of regions, if they were asked for."""
    proposed_buffers: Buffers | None
    """The same samples in the buffers of `proposed`."""
    longer: DataConfig | None
    """If the rows of `proposed` are not full of latents, a config with longer ones that are, if there is one."""


def validate(config: RunConfig, begin: Begin, *, fit: bool = False) -> Validation:
    """Reads the split that a run trains on.

    Args:
      config: the config of the run. Its devices are not looked at, so any machine will do.
      begin: shows progress.
      fit: whether to propose the lengths of the regions.

    Raises:
      ConfigError: the run would be refused because of its config or because its dataset cannot be read.
      UserError: a file of the dataset is missing or cut.
    """
    config = with_local_paths(config)
    check_config(config)
    mixture = open_data(config)
    data, layout = config.data, run_layout(config)
    groups = groups_of(config, mixture)
    # The tokenizer of the config needs no checkpoint, which may be on another machine.
    tokenizer = run_tokenizer(config, None if data.tokenizer else run_source(config))
    check_files(data)
    advance = begin("Reading records", sum(len(group.numbers) for group in groups))
    found = config_errors(survey, mixture, data, layout, tokenizer, advance)
    steps = steps_per_epoch(found.buffers, groups, data)
    proposed = proposed_buffers = longer = None
    if fit:
        proposed = replace(config, data=propose_for(config, mixture, found.buffers))
        proposed_buffers = found.buffers.refilled(proposed.data)
        if real_latents(proposed_buffers) < FULL:
            longer = longer_for(proposed, mixture, found.buffers)
    limit = "" if found.buffers.packing is None else limit_of(config, mixture, found.buffers)
    problems = list(_problems(config, found, steps))
    return Validation(config, found, limit, steps, problems, proposed, proposed_buffers, longer)


def _problems(config: RunConfig, found: Survey, steps: dict[str, float]) -> Iterator[str]:
    """Yields what would break the run, as sentences."""
    try:
        check_share(found.buffers, config.data, f"{found.buffers.samples:,} samples")
    except TooManySkipped as error:
        yield f"{error}."
    if config.evaluation.records:
        try:
            held_out_numbers(config, open_held_out(config))
        except UserError as error:
            yield f"{error}."
    if config.data.epochs and steps and config.steps > (most := math.floor(config.data.epochs * steps["all"])):
        yield (
            f"config.steps is {config.steps:,}, but the data end after about {most:,} steps "
            f"(config.data.epochs = {config.data.epochs}): lower steps, or set epochs to 0."
        )
