"""Precomputes moments or vision features of a dataset's pictures, for `data.encoded` or `data.features` of runs.

`python -m uno_jax.prepare_data encode --config=FILE --checkpoint=DIR [--features]`; see docs/data.md.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import jax
from absl import flags
from rich.console import Console

from uno_jax.config import ConfigError, dictionary_fields, from_config_dict
from uno_jax.data.config import DataConfig
from uno_jax.data.mixture import part_configs
from uno_jax.enrich.encode import encode
from uno_jax.enrich.shards import RECORDS_PER_SHARD
from uno_jax.inference.options import define_part
from uno_jax.parallel.flags import define_hosts, joined_hosts
from uno_jax.process.errors import exit_with_message
from uno_jax.process.files import check_folder
from uno_jax.process.flags import define_config, define_path, parse_flags, section_of
from uno_jax.process.signals import exit_on_signals
from uno_jax.process.start_up import set_up_jax
from uno_jax.run.config import RunConfig, with_local_paths
from uno_jax.run.programs import config_errors


def main(arguments: Sequence[str], console: Console | None = None) -> None:
    """Runs the command, and reports an error in one message."""
    options = flags.FlagValues()
    define_config(options, arguments, dictionary_fields(RunConfig))
    note = "makes vision features for data.features, instead of moments for data.encoded"
    flags.DEFINE_boolean("features", False, note, **section_of(options, "model"))
    note = "the model that encodes: a run's workdir, one of its checkpoints, or a public directory; default: init_from"
    define_path(options, "checkpoint", None, note, "model")
    note = "folder of the moments or features; default: `encoded` or `features` in the dataset"
    define_path(options, "out", None, note, "output")
    note = "name of the dataset in config.data.mixture, if the config has one"
    flags.DEFINE_string("mixture", None, note, **section_of(options, "model"))
    note = "records per shard: what is in memory at once, and done again after a kill"
    flags.DEFINE_integer("records_per_shard", RECORDS_PER_SHARD, note, lower_bound=1, **section_of(options, "output"))
    define_part(options, "output", "makes every N-th shard")
    define_hosts(options)
    parse_flags(options, arguments, command="prepare_data encode", about=__doc__, required=("config",))
    set_up_jax()
    console = console or Console(soft_wrap=True)
    hosts = joined_hosts(options) if options.part is None else contextlib.nullcontext()
    with exit_on_signals(), exit_with_message(), hosts:
        config = with_local_paths(from_config_dict(options.config, RunConfig))
        config = replace(config, data=_dataset(config, options.mixture))
        checkpoint = options.checkpoint or config.init_from
        if not checkpoint:
            raise ConfigError("encode needs a model: give --checkpoint, or --config.init_from")
        field, what = ("features", "features") if options.features else ("encoded", "moments")
        out = Path(options.out) if options.out else Path(config.data.directory) / field
        check_folder(out)
        part = options.part or (jax.process_index(), jax.process_count())
        each = options.records_per_shard
        annex = encode(config, checkpoint, out, console, features=options.features, records_per_shard=each, part=part)
        made = annex.about["checkpoint"]["name"]
        for name, value in ((what, out), ("made with", made), ("use them with", f"--config.data.{field}={out}")):
            console.print(f"{name + ':':15}{value}", markup=False, highlight=False)


def _dataset(config: RunConfig, name: str | None) -> DataConfig:
    """Returns the data config of one dataset: of a mixture, the one that `--mixture` names."""
    parts = config_errors(part_configs, config.data)
    if (name or "") not in parts:
        expected = f"name one of {', '.join(parts)}" if config.data.mixture else "omit it: the config has no mixture"
        raise ConfigError(f"--mixture is {name or 'missing'}: {expected}")
    return parts[name or ""]
