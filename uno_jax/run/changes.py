"""What may change in a run's config when the run is resumed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from uno_jax.config import to_json
from uno_jax.models.config import ModelConfig, model_differences
from uno_jax.run.config import RunConfig
from uno_jax.training.optimizer import learning_rate_schedule

FREE = (
    "steps",
    "init_from",
    "random_frozen",
    "log_every",
    "watchdog_minutes",
    "tensorboard",
    "wandb",
    "checkpoint",
    "limits",
    "evaluation",
    "pictures",
    "profile",
    "mesh",
    # Compared by content: fingerprints of the data and of captions, tokenizer files, what moments and features were
    # made of.
    "data.directory",
    "data.tokenizer",
    "data.captions",
    "data.encoded",
    "data.features",
    "data.max_skipped_share",
    "data.prefetch",
    "data.workers",
    "data.read_threads",
    "optimizer.learning_rate",
    "optimizer.schedule",
    "optimizer.warmup_steps",
    "optimizer.final_learning_rate",
    "optimizer.accumulation",
    "optimizer.ema_decay",
    "optimizer.ema_memory",
    "optimizer.nonfinite",
)
"""Fields, and groups of fields, that a resumed run may change without being asked about it. They leave the samples and
the loss as they are, or are there to be adjusted, as the learning rate is. All other fields are refused. For
`model`, see `model_differences`."""


_FOLDERS = ("directory", "captions", "encoded", "features")
"""Fields of a dataset of a mixture that name folders."""


class Change(NamedTuple):
    """A field that differs from the checkpoint's config."""

    name: str
    before: Any
    now: Any
    free: bool
    """Whether it is taken without being asked for."""
    possible: bool = True
    """Whether it can be taken at all."""

    def __str__(self) -> str:
        return f"config.{self.name} is {self.now!r}, in the checkpoint {self.before!r}"


def changes(config: RunConfig, saved: Mapping[str, Any], model: ModelConfig) -> list[Change]:
    """Compares a config with the one that a checkpoint was saved with.

    Fields that the saved config lacks, because an earlier version wrote it, had today's defaults.

    Args:
      config: the config of the resumed run.
      saved: the checkpoint's `config.json`.
      model: the checkpoint's model.
    """
    defaults = dict(config_fields(RunConfig()))
    sizes = model_differences(config.model, model)
    found = []
    for name, now in config_fields(config):
        before = _lookup(saved, name, defaults[name])
        if name == "data.mixture":
            before, now = _without_folders(before), _without_folders(now)
        if name.startswith("model."):
            fixed = name.removeprefix("model.") in sizes
            change = Change(name, before, now, free=not fixed, possible=not fixed)
        else:
            change = Change(name, before, now, free=_is_free(name))
        if before != now:
            found.append(change)
    return found


def config_fields(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the dotted name and the JSON value of every field that is not a dataclass."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from config_fields(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, to_json(value)


def _lookup(saved: Any, name: str, default: Any) -> Any:
    for part in name.split("."):
        if not isinstance(saved, Mapping) or part not in saved:
            return default
        saved = saved[part]
    return saved


def _without_folders(mixture: Mapping[str, Any]) -> dict[str, Any]:
    """Leaves out the folders, which are compared by content as `data.directory` is."""
    return {
        name: {field: value for field, value in part.items() if field not in _FOLDERS} for name, part in mixture.items()
    }


def _is_free(name: str) -> bool:
    return any(name == free or name.startswith(f"{free}.") for free in FREE)


def learning_rate_line(config: RunConfig, saved: Mapping[str, Any], step: int) -> str | None:
    """Says how the learning rate goes on after `step`, if the steps or the schedule differ from the checkpoint's."""
    names = ("steps", *(f"optimizer.{name}" for name in ("learning_rate", "schedule", "warmup_steps")))
    names += ("optimizer.final_learning_rate",)
    now = dict(config_fields(config))
    before = {name: _lookup(saved, name, now[name]) for name in names}
    if step >= config.steps or all(before[name] == now[name] for name in names):
        return None
    optimizer = dataclasses.replace(
        config.optimizer, **{name.removeprefix("optimizer."): before[name] for name in names[1:]}
    )
    first = float(learning_rate_schedule(config.optimizer, config.steps)(step))
    last = float(learning_rate_schedule(config.optimizer, config.steps)(config.steps - 1))
    planned = float(learning_rate_schedule(optimizer, before["steps"])(step))
    shape = f"The {config.optimizer.schedule} schedule now ends at step {config.steps}, before at {before['steps']}"
    return (
        f"{shape}: step {step + 1} has learning rate {first:.3g}, before {planned:.3g}, and the last step {last:.3g}."
    )
