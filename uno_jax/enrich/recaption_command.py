"""Writes further captions of a dataset's pictures with a model, for `data.captions` of runs.

`python -m uno_jax.prepare_data recaption --data=DIR --checkpoint=DIR --out=DIR`; see docs/data.md.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import jax
from absl import flags
from rich.console import Console

from uno_jax.config import ConfigError
from uno_jax.enrich.recaption import MAX_LENGTH, Recaption, check_splits, recaption
from uno_jax.enrich.shards import RECORDS_PER_SHARD
from uno_jax.enrich.styles import STYLES
from uno_jax.inference.options import define_part, define_reader, define_texts, reader_from_flags, text_config
from uno_jax.interop.identity import about_checkpoint, folder_name
from uno_jax.parallel.flags import define_hosts, joined_hosts
from uno_jax.process.errors import exit_with_message
from uno_jax.process.files import check_folder
from uno_jax.process.flags import define_path, parse_flags, section_of
from uno_jax.process.signals import exit_on_signals
from uno_jax.process.start_up import set_up_jax
from uno_jax.sampling.text import TextConfig


def main(arguments: Sequence[str], console: Console | None = None) -> None:
    """Runs the command, and reports an error in one message."""
    options = flags.FlagValues()
    _define(options)
    required = ("data", "checkpoint", "out")
    parse_flags(options, arguments, command="prepare_data recaption", about=__doc__, required=required)
    set_up_jax()
    console = console or Console(soft_wrap=True)
    hosts = joined_hosts(options) if options.part is None else contextlib.nullcontext()
    with exit_on_signals(), exit_with_message(), hosts:
        wanted = Recaption(
            directory=Path(options.data),
            splits=tuple(dict.fromkeys(options.splits)),
            styles=_styles(options),
            text=text_config(options),
            batch=options.batch,
            records_per_shard=options.records_per_shard,
        )
        check_splits(wanted.directory, wanted.splits)
        check_folder(Path(options.out))
        name = options.name or folder_name(options.checkpoint)
        about = {"name": name, **about_checkpoint(options.checkpoint), "ema": options.ema}
        part = options.part or (jax.process_index(), jax.process_count())
        recaption(reader_from_flags(options), about, wanted, Path(options.out), console, part=part)
        for what, value in (("captions", options.out), ("use them with", f"--config.data.captions={options.out}")):
            console.print(f"{what + ':':15}{value}", markup=False, highlight=False)


def _define(options: flags.FlagValues) -> None:
    define_path(options, "data", None, "the dataset of prepare_data", "captions")
    place = section_of(options, "captions")
    flags.DEFINE_list("splits", ["train"], "splits to caption", **place)
    note = f"what is asked of each picture: {', '.join(STYLES)}"
    flags.DEFINE_list("styles", ["short", "detailed"], note, **place)
    flags.DEFINE_multi_string("prompt", [], "a question of your own, as a further style", **place)
    define_path(options, "out", None, "folder of the captions", "captions")
    flags.DEFINE_integer("batch", Recaption.batch, "captions written at once", lower_bound=1, **place)
    note = "records per shard: what is done again after a kill"
    flags.DEFINE_integer("records_per_shard", RECORDS_PER_SHARD, note, lower_bound=1, **place)
    define_part(options, "captions", "makes every N-th shard")
    define_reader(options)
    note = "name of the model, stored with each caption; default: the last folder of the checkpoint's path"
    flags.DEFINE_string("name", None, note, **section_of(options, "model"))
    define_texts(options, "text", TextConfig(max_length=MAX_LENGTH))
    define_hosts(options)


def _styles(options: flags.FlagValues) -> dict[str, str]:
    unknown = [name for name in options.styles if name not in STYLES]
    if unknown:
        raise ConfigError(f"--styles names {', '.join(unknown)}: expected some of {', '.join(STYLES)}")
    if not all(question.strip() for question in options.prompt):
        raise ConfigError("--prompt is empty: give a question, or --styles=plain to ask nothing")
    own = {f"own_{number}": question for number, question in enumerate(options.prompt, start=1)}
    styles = {name: STYLES[name] for name in options.styles} | own
    if not styles:
        raise ConfigError("nothing is asked of the pictures: give --styles or --prompt")
    return styles
