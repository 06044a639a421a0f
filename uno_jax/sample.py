"""Generates pictures: `python -m uno_jax.sample --checkpoint=DIR --prompt="a red heart" --out=DIR`.

See docs/sampling.md.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from absl import flags
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from uno_jax.inference.contexts import read_picture
from uno_jax.inference.generate import BATCH, Generator, Request
from uno_jax.inference.options import (
    define_metadata,
    define_model,
    define_part,
    define_pictures,
    define_thoughts,
    load_from_flags,
    picture_settings,
    thought_config,
)
from uno_jax.inference.picture_files import read_settings, write_picture, write_png
from uno_jax.inference.picture_metadata import picture_metadata
from uno_jax.inference.prompt_files import Prompt, PromptError, check_prompts, prompts_of_arguments, read_prompts
from uno_jax.parallel.flags import define_hosts, joined_hosts
from uno_jax.process.errors import exit_with_message
from uno_jax.process.files import check_folder
from uno_jax.process.flags import define_path, define_paths, parse_flags, section_of
from uno_jax.process.signals import exit_on_signals
from uno_jax.process.start_up import set_up_jax
from uno_jax.sheets.samples import Example, Picture, make_sheet


class Wanted(NamedTuple):
    """A requested picture and its file."""

    file: Path
    prompt: Prompt
    request: Request
    settings: dict[str, Any]
    """Metadata of the file."""


def main(arguments: Sequence[str], console: Console | None = None) -> None:
    """Runs the command, and reports an error in one message."""
    options = flags.FlagValues()
    _define(options)
    parse_flags(options, arguments, command="sample", about=__doc__, required=("checkpoint", "out"))
    console = console or Console(soft_wrap=True)
    set_up_jax()
    with exit_on_signals(), exit_with_message():
        prompts = _prompts(options)
        check_folder(Path(options.out))
        with joined_hosts(options) if options.part is None else contextlib.nullcontext():
            _sample(options, prompts, console)


def _define(options: flags.FlagValues) -> None:
    define_model(options)
    place = section_of(options, "prompts")
    flags.DEFINE_multi_string("prompt", [], "description of the picture, or of the change", **place)
    define_paths(options, "image", "picture to edit by --prompt", "prompts")
    note = "file with one prompt per line, or JSONL with pictures and settings"
    define_path(options, "prompts", None, note, "prompts")
    flags.DEFINE_integer("count", 1, "pictures per prompt, with consecutive seeds", 1, 100_000, **place)
    flags.DEFINE_boolean("think", False, "write a plan of the picture first", **place)
    place = section_of(options, "output")
    note = "folder of the pictures; existing ones with the same settings are skipped"
    define_path(options, "out", None, note, "output")
    define_metadata(options, "output", "; without it, all existing pictures are skipped")
    flags.DEFINE_integer("batch", BATCH, "pictures per batch", lower_bound=1, **place)
    note = "maximum pictures on sheet.png; 0: no sheet"
    flags.DEFINE_integer("sheet", 48, note, 0, 1000, **place)
    define_part(options, "output")
    define_hosts(options)
    define_pictures(options)
    define_thoughts(options)


def _prompts(options: flags.FlagValues) -> list[Prompt]:
    settings = picture_settings(options, think=options.think)
    if bool(options.prompt) == bool(options.prompts):
        raise PromptError("expected either --prompt or --prompts")
    if options.image and not options.prompt:
        raise PromptError('--image requires --prompt; in a JSONL file, use the field "images"')
    if options.prompt:
        return prompts_of_arguments(options.prompt, options.image, settings)
    return read_prompts(options.prompts, settings)


def _sample(options: flags.FlagValues, prompts: Sequence[Prompt], console: Console) -> None:
    part, parts = options.part or (jax.process_index(), jax.process_count())
    generator = load_from_flags(options, thought_config(options))
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
        keep = options.metadata == "all"
        existing = {item.file: item.file.exists() and read_settings(item.file) for item in wanted}
        missing = [
            item for item in wanted if (existing[item.file] != item.settings if keep else not item.file.exists())
        ]
        progress.reset(task, total=len(missing), description="generating", visible=bool(missing))
        out.mkdir(parents=True, exist_ok=True)
        for number, generated in generator.generate([item.request for item in missing], options.batch):
            item = missing[number]
            write_picture(item.file, generated.image, item.settings if keep else None, generated.thought)
            progress.advance(task)
    if options.sheet and wanted:
        name = "sheet.png" if parts == 1 else f"sheet-{part}-of-{parts}.png"
        _write_sheet(out / name, wanted[: options.sheet], generator.reader.model.name)
    again = sum(bool(existing[item.file]) for item in missing)
    console.print(
        f"{out}: {len(missing) - again} generated, {f'{again} regenerated (settings changed), ' if again else ''}"
        f"{len(wanted) - len(missing)} skipped",
        markup=False,
        highlight=False,
    )


def _wanted(prompts: Sequence[Prompt], count: int, generator: Generator, out: Path) -> list[Wanted]:
    """Returns every picture of every prompt."""
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
