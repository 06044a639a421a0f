"""Configs of the runs of a study: config files, changes to them, and what the study sets itself."""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from uno_jax.config import ConfigError, from_config_dict, to_json
from uno_jax.process.errors import raised_in
from uno_jax.run.config import RunConfig, check_config
from uno_jax.study.config import RunPlan
from uno_jax.study.unit import flat

# Paths, and fields that change neither what a run computes nor how it is measured.
_FREE = (
    *("init_from", "data.directory"),
    *("pictures", "profile", "log_every", "tensorboard", "wandb"),
    *("data.prefetch", "data.workers", "data.read_threads", "data.max_skipped_share"),
)


def run_config(plan: RunPlan, changes: Sequence[str] = (), **fields: Any) -> RunConfig:
    """Returns the config of a run.

    Args:
      plan: the config file, and its changes.
      changes: further changes, `field=value`.
      **fields: values that the study sets, by dotted name with `__` for the dot.

    Raises:
      ConfigError: there is no such config, or a field is invalid. The message names the config.
    """
    config = read_config(plan.config)
    for change in (*plan.changes, *changes):
        _apply(config, change, plan.config)
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in fields.items()})
    try:
        run = from_config_dict(config, RunConfig)
        check_config(run)
    except ConfigError as error:
        raise ConfigError(f"{plan.config}: {error}") from error
    return run


def read_config(name: str) -> ConfigDict:
    """Reads a config by the name of a built-in one, or by its path.

    Raises:
      ConfigError: there is no such config.
    """
    if name.endswith(".py"):
        return _config_of_file(name)
    try:
        module = importlib.import_module(f"configs.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"configs.{name}":
            raise
        raise ConfigError(f"there is no built-in config {name!r}: give its name or the path of a file") from None
    config: ConfigDict = module.get_config()
    return config


def _config_of_file(name: str) -> ConfigDict:
    """Reads a user's config file, whose errors are the user's."""
    found = importlib.util.spec_from_file_location(f"config_{Path(name).stem}", name)
    if found is None or found.loader is None or not Path(name).is_file():
        raise ConfigError(f"the config file {name} does not exist")
    module = importlib.util.module_from_spec(found)
    try:
        found.loader.exec_module(module)
        config: ConfigDict = module.get_config()
    except Exception as error:
        raise ConfigError(f"the config file {raised_in(error, name) or f'{name} cannot be used ({error})'}") from error
    if not isinstance(config, ConfigDict):
        raise ConfigError(f"the config file {name}: get_config() returned {config!r}; expected a ConfigDict")
    return config


def identity(config: RunConfig) -> dict[str, Any]:
    """Returns the values of a run's config that differ from the defaults, as JSON by dotted name.

    Fields that do not change its result are left out.
    """
    defaults, values = (dict(flat(to_json(each))) for each in (RunConfig(), config))
    return {
        name: value
        for name, value in values.items()
        if (name not in defaults or value != defaults[name])
        and not f"{name}.".startswith(tuple(f"{x}." for x in _FREE))
    }


def _apply(config: ConfigDict, change: str, where: str) -> None:
    """Applies `field=value`, with the value as the field's type is written in Python, strings without quotes."""
    name, equals, text = change.partition("=")
    known = dict(flat(config.to_dict()))
    if not equals or name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"{where}: {change!r} is not field=value with a field of the config{hint}")
    value: Any = text
    if not isinstance(known[name], str):
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            raise ConfigError(f"{where}: {change!r}: expected a value such as {known[name]!r}") from None
    try:
        config.update_from_flattened_dict({name: value})
    except TypeError as error:
        raise ConfigError(f"{where}: {change!r}: {error}") from None
