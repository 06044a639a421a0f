"""Generates the pictures of a benchmark in batches, and continues where an earlier call stopped."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import jax
from rich.console import Console

from uno_jax.config import to_json
from uno_jax.evaluation.benchmark import Benchmark, BenchmarkError, Data, Item, Preset, seed_of
from uno_jax.evaluation.progress import Progress
from uno_jax.evaluation.record import Made, Record, check_same, write_record
from uno_jax.inference.contexts import read_picture
from uno_jax.inference.generate import Generator, Request
from uno_jax.inference.picture_files import read_settings, write_picture
from uno_jax.inference.picture_metadata import picture_metadata
from uno_jax.inference.prompt_files import Prompt, check_prompts
from uno_jax.parallel.hosts import exchange_json
from uno_jax.process.files import hash_files
from uno_jax.training.versions import versions


class Job(NamedTuple):
    """What to generate."""

    benchmark: Benchmark
    data: Data
    preset_name: str
    preset: Preset
    """The preset, with the changes of the command line."""
    changes: Mapping[str, Any]
    """These changes, as JSON."""
    name: str
    """Name of the model in reports, and in folders that a scorer names after it."""
    checkpoint: Mapping[str, Any]
    """From `about_checkpoint`, with `ema`."""
    out: Path
    samples: int
    """Pictures per item."""
    batch: int
    """Maximum pictures per batch."""
    part: tuple[int, int] = (0, 1)
    """Index of this process and number of processes, if these do not know of each other. Joined hosts share a part."""


class Wanted(NamedTuple):
    """A picture to generate."""

    made: Made
    item: Item
    request: Request
    metadata: dict[str, Any]
    """Metadata of the file."""


class Finished(NamedTuple):
    """Numbers of pictures of all joined hosts after a call."""

    generated: int
    kept: int
    """Pictures that existed."""
    missing: int
    """Pictures of other parts that do not exist yet."""


def record_of(job: Job, generator: Generator) -> Record:
    """Returns the record of all pictures of a job."""
    model, preset = generator.reader.model, job.preset
    head = {
        "benchmark": job.benchmark.name,
        "preset": job.preset_name,
        "name": job.name,
        "checkpoint": {"name": model.name, **job.checkpoint},
        "dtype": model.precision,
        "settings": {
            **{name: value for name, value in to_json(preset.settings).items() if name != "seed"},
            "time_shift": preset.settings.flow(model.time_shift).time_shift,
        },
        "changes": dict(job.changes),
        "thoughts": _thoughts(generator) if preset.settings.think else None,
        "prefix": preset.prefix,
        "seeds": "the lower 31 of the first 32 bits of SHA-256(benchmark/item/sample)",
        "data": {
            "files": [file.name for file in job.data.files],
            "sha256": hash_files(job.data.files),
            "items": len(job.data.items),
            "items_published": job.benchmark.published,
        },
        "samples": job.samples,
        "versions": versions(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    pictures = [
        Made(
            item.id,
            sample,
            seed_of(job.benchmark.name, item.id, sample),
            job.benchmark.picture(item, sample, job.name),
        )
        for item in job.data.items
        for sample in range(job.samples)
    ]
    return Record(head, list(job.data.items), pictures)


def _thoughts(generator: Generator) -> dict[str, Any]:
    return {"drawing_prompt": generator.thinking.drawing_prompt, **to_json(generator.thinking.text)}


def generate(job: Job, generator: Generator, published: Path, console: Console) -> Finished:
    """Generates the pictures of a job that do not exist, and writes the record.

    Joined hosts share the pictures that are missing, item by item. Host 0 alone writes what all share: the pictures to
    edit, and the record.

    Args:
      job: what to generate.
      generator: the model.
      published: path of the published files.
      console: receives the numbers of pictures and the time left.

    Raises:
      BenchmarkError: the folder has pictures of another checkpoint or of other settings.
      PromptError: the model cannot read a prompt or a picture, or does not support the size.
    """
    record, host, hosts = record_of(job, generator), jax.process_index(), jax.process_count()
    if host == 0:
        check_same(job.out, record.head)
        job.out.mkdir(parents=True, exist_ok=True)
        if job.benchmark.unpack is not None:
            job.benchmark.unpack(published, job.out, job.data.items, job.name)
    exchange_json("unpacked", None)
    requests = _requests(job, record, generator)
    for _ in check_prompts([_prompt(item, request) for item, _, request in requests], generator):
        pass
    by_item: dict[str, list[Wanted]] = {item.id: [] for item in job.data.items[job.part[0] :: job.part[1]]}
    for item, made, request in requests:
        if item.id in by_item:
            metadata = _without_place(picture_metadata(request, generator), job.checkpoint)
            by_item[item.id].append(Wanted(made, item, request, metadata))
    if host == 0:
        write_record(job.out, record)
    missing = _missing(job, list(by_item.values())[host::hosts])
    items: dict[bool, list[list[Wanted]]] = {True: [], False: []}
    for parts in by_item.values():
        items[any(part.made.file in missing for part in parts)].append(parts)
    own = [part for parts in items[True][host::hosts] for part in parts if part.made.file in missing]
    wanted = [part.made for parts in by_item.values() for part in parts]
    _announce(job, len(wanted), len(missing), len(own), console)
    _finish(job, items[False][host::hosts])
    unmade = {part.made for part in own}
    for batch in _generated(job, generator, own, console):
        unmade.difference_update(batch)
        done = [by_item[item] for item in dict.fromkeys(made.item for made in batch)]
        _finish(job, [parts for parts in done if not unmade.intersection(part.made for part in parts)])
    exchange_json("made", None)
    elsewhere = write_record(job.out, record, set(wanted)) if host == 0 else []
    return Finished(len(missing), len(wanted) - len(missing), len(elsewhere))


def _missing(job: Job, share: Sequence[Sequence[Wanted]]) -> set[str]:
    """Returns the files that are missing on all hosts, given the items whose files this host looks at."""
    files = [
        part.made.file for parts in share for part in parts if read_settings(job.out / part.made.file) != part.metadata
    ]
    return {file for found in exchange_json("missing", files) for file in found}


def _requests(job: Job, record: Record, generator: Generator) -> list[tuple[Item, Made, Request]]:
    items = {item.id: item for item in job.data.items}
    found = []
    for made in record.pictures:
        item = items[made.item]
        text = f"{job.preset.prefix}{item.prompt}"
        sources = [] if item.source is None else [job.out / name for name in (item.source, *item.more)]
        settings = dataclasses.replace(job.preset.settings, seed=made.seed)
        if len(sources) > 1 and not settings.size and not settings.aspect:
            settings = dataclasses.replace(settings, size=_size_of(sources[0], generator))
        found.append((item, made, Request((*sources, text), settings)))
    return found


def _size_of(picture: Path, generator: Generator) -> str:
    """Returns the size that a picture is resized to. BAGEL's scripts make that of the first of several pictures, while
    `sample` makes that of the last."""
    height, width, _ = read_picture(picture).shape
    return "{}x{}".format(*generator.reader.model.vae_transform.size(width, height))


def _prompt(item: Item, request: Request) -> Prompt:
    return Prompt(item.where, item.id, request)


def _without_place(metadata: dict[str, Any], checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Replaces the name of the checkpoint, which depends on its place, by its hash."""
    return {**metadata, "checkpoint": checkpoint["sha256"], "ema": checkpoint["ema"]}


def _announce(job: Job, wanted: int, missing: int, own: int, console: Console) -> None:
    items, published, hosts = len(job.data.items), job.benchmark.published, jax.process_count()
    lines = [
        f"{job.benchmark.name}: {wanted:,} pictures ({items:,} items, {job.samples} each"
        f"{f', part {job.part[0]} of {job.part[1]}' if job.part[1] > 1 else ''}), "
        f"{missing:,} to make{f', {own:,} here (host {jax.process_index()} of {hosts})' if hosts > 1 else ''}, "
        f"{wanted - missing:,} present"
    ]
    if items != published:
        lines.append(f"note: the prompt file has {items:,} items, but {published:,} were published")
    for line in lines:
        console.print(line, markup=False, highlight=False)


def _generated(
    job: Job, generator: Generator, missing: Sequence[Wanted], console: Console
) -> Iterator[tuple[Made, ...]]:
    """Generates and writes pictures, and yields those of each batch."""
    requests = [item.request for item in missing]
    batches = generator.batches(requests, job.batch)
    progress = Progress(console, len(missing), "picture")
    for batch in batches:
        for index, generated in generator.generate([requests[i] for i in batch], len(batch)):
            item = missing[batch[index]]
            file = job.out / item.made.file
            file.parent.mkdir(parents=True, exist_ok=True)
            write_picture(file, generated.image, item.metadata, generated.thought)
        progress.add(len(batch))
        yield tuple(missing[i].made for i in batch)


def _finish(job: Job, items: Sequence[Sequence[Wanted]]) -> None:
    """Writes what the scorer reads beside the pictures of complete items."""
    if job.benchmark.finish is not None:
        for parts in items:
            files = [job.out / part.made.file for part in parts]
            job.benchmark.finish(job.out, parts[0].item, job.name, files)


def check_samples(benchmark: Benchmark, preset: Preset, samples: int | None) -> int:
    """Returns the number of pictures per item: as given, or of the preset, or of the benchmark.

    Raises:
      BenchmarkError: the scorer of the benchmark needs another number.
    """
    if samples is None or samples == benchmark.samples:
        return samples or preset.samples or benchmark.samples
    if not benchmark.any_samples:
        raise BenchmarkError(f"--samples is {samples}, but the scorer of {benchmark.name} reads {benchmark.samples}")
    return samples
