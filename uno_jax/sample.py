"""Draws pictures: `python -m uno_jax.sample --checkpoint=DIR --prompt="a red heart" --out=DIR`; docs/sampling.md."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from absl import logging
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from uno_jax.config import ConfigError
from uno_jax.inference.contexts import read_picture
from uno_jax.inference.generate import BATCH, Generator, Request
from uno_jax.inference.options import (
    THOUGHTS,
    add_model_options,
    add_picture_options,
    add_thought_options,
    load_from_options,
    picture_settings,
    text_config,
)
from uno_jax.inference.picture_files import read_settings, write_picture, write_png
from uno_jax.inference.picture_metadata import picture_metadata
from uno_jax.inference.prompt_files import Prompt, PromptError, check_prompts, prompts_of_arguments, read_prompts
from uno_jax.parallel.hosts import failing_together, join_hosts
from uno_jax.process.errors import CheckpointError
from uno_jax.process.memory import keep_freed_memory
from uno_jax.sheets.samples import Example, Picture, make_sheet


class Wanted(NamedTuple):
    """A picture to be written."""

    file: Path
    prompt: Prompt
    request: Request
    settings: dict[str, Any]
    """What the file will say it was made with."""


def main(arguments: Sequence[str], console: Console | None = None) -> None:
    """Runs, and says in one message what is wrong if something is."""
    options = _parser().parse_args(arguments)
    console = console or Console(soft_wrap=True)
    logging.set_verbosity(logging.WARNING)  # Orbax tells of every file
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        keep_freed_memory()
    try:
        prompts = _prompts(options)
        if options.part is None:
            join_hosts()
        with failing_together():
            _sample(options, prompts, console)
    except (ConfigError, CheckpointError, ValueError, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m uno_jax.sample", description=__doc__)
    add_model_options(parser)
    what = parser.add_argument_group("what to draw")
    what.add_argument("--prompt", action="append", default=[], metavar="TEXT", help="may be given several times")
    what.add_argument("--image", action="append", default=[], metavar="FILE", help="picture that --prompt is to change")
    what.add_argument("--prompts", metavar="FILE", help="a prompt a line, or JSONL with pictures and settings")
    what.add_argument("--count", type=int, default=1, metavar="N", help="pictures of each prompt, with seeds one apart")
    what.add_argument("--think", action="store_true", help="write what is to be drawn, then draw")
    where = parser.add_argument_group("where and how much at once")
    note = "where pictures go; those that are there with the same settings stay"
    where.add_argument("--out", required=True, metavar="DIR", help=note)
    where.add_argument("--batch", type=int, default=BATCH, metavar="N", help=f"pictures at once (default {BATCH})")
    note = "of the first so many pictures, sheet.png (default 48; 0: none)"
    where.add_argument("--sheet", type=int, default=48, metavar="N", help=note)
    note = "of N processes this is number I, from 0, and draws every N-th picture (default: as JAX numbers its hosts)"
    where.add_argument("--part", type=_part, metavar="I/N", help=note)
    add_picture_options(parser.add_argument_group("how"))
    add_thought_options(parser)
    return parser


def _part(text: str) -> tuple[int, int]:
    try:
        number, count = (int(digits) for digits in text.split("/"))
    except ValueError:
        number, count = -1, 0
    if not 0 <= number < count:
        raise argparse.ArgumentTypeError(f"{text!r}: expected I/N with I from 0 to N - 1, as 0/4")
    return number, count


def _prompts(options: argparse.Namespace) -> list[Prompt]:
    settings = picture_settings(options, think=options.think)
    if bool(options.prompt) == bool(options.prompts):
        raise PromptError("give --prompt or --prompts, one of the two")
    if options.image and not options.prompt:
        raise PromptError('--image goes with --prompt; in a JSONL file, pictures are the field "images" of a line')
    for name, least in (("count", 1), ("batch", 1), ("sheet", 0)):
        if getattr(options, name) < least:
            raise PromptError(f"--{name} is {getattr(options, name)}: expected {least} or more")
    if options.prompt:
        return prompts_of_arguments(options.prompt, options.image, settings)
    return read_prompts(options.prompts, settings)


def _sample(options: argparse.Namespace, prompts: Sequence[Prompt], console: Console) -> None:
    part, parts = options.part or (jax.process_index(), jax.process_count())
    generator = load_from_options(options, text_config(options, THOUGHTS))
    out = Path(options.out)
    with _progress(console) as progress:
        task = progress.add_task("checking", total=len(prompts))
        for _ in check_prompts(prompts, generator):
            progress.advance(task)
        wanted = [
            wanted
            for number, wanted in enumerate(_wanted(prompts, options.count, generator, out))
            if number % parts == part
        ]
        there = {item.file: read_settings(item.file) for item in wanted}
        missing = [item for item in wanted if there[item.file] != item.settings]
        progress.reset(task, total=len(missing), description="drawing", visible=bool(missing))
        out.mkdir(parents=True, exist_ok=True)
        for number, generated in generator.generate([item.request for item in missing], options.batch):
            item = missing[number]
            write_picture(item.file, generated.image, item.settings, generated.thought)
            progress.advance(task)
    if options.sheet and wanted:
        name = "sheet.png" if parts == 1 else f"sheet-{part}-of-{parts}.png"
        _write_sheet(out / name, wanted[: options.sheet], generator.reader.model.origin)
    again = sum(there[item.file] is not None for item in missing)
    console.print(
        f"{out}: {len(missing)} drawn{f' ({again} of them anew, for their settings differ)' if again else ''}, "
        f"{len(wanted) - len(missing)} were there",
        markup=False,
        highlight=False,
    )


def _wanted(prompts: Sequence[Prompt], count: int, generator: Generator, out: Path) -> list[Wanted]:
    """Every picture of every prompt."""
    wanted = []
    for prompt in prompts:
        for seed in range(prompt.request.settings.seed, prompt.request.settings.seed + count):
            settings = dataclasses.replace(prompt.request.settings, seed=seed)
            request = prompt.request._replace(settings=settings)
            file = out / f"{prompt.id}-seed{seed}.png"
            wanted.append(Wanted(file, prompt, request, picture_metadata(request, generator)))
    return wanted


def _write_sheet(file: Path, wanted: Sequence[Wanted], title: str) -> None:
    examples = []
    for item in sorted(wanted, key=lambda item: bool(item.prompt.pictures)):
        pictures = [*(Picture("source", read_picture(path)) for path in item.prompt.pictures)]
        pictures.append(Picture(f"seed {item.request.settings.seed}", read_picture(item.file)))
        examples.append(Example("editing" if item.prompt.pictures else "text_to_image", item.prompt.text, pictures))
    write_png(file, make_sheet(title, examples))


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console)


if __name__ == "__main__":
    main(sys.argv[1:])
