"""Sets up a training run from its config and runs it."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import rich.console
from jax.sharding import Mesh

from uno_jax.batch import REGIONS
from uno_jax.config import json_file, to_json
from uno_jax.data.buffers import Buffers, check_share
from uno_jax.data.config import DataConfig
from uno_jax.data.mixture import Mixture, check_files, part_configs
from uno_jax.data.pipeline import TooManySkipped
from uno_jax.data.records import has_split, open_records
from uno_jax.data.tokenizer import Tokenizer
from uno_jax.data.workers import open_batches
from uno_jax.interop.provenance import Provenance
from uno_jax.models.quantised import with_originals
from uno_jax.parallel.hosts import gather_shares, report_failure
from uno_jax.parallel.mesh import check_rows, make_mesh, put_rows, replicated, row_share
from uno_jax.process.errors import CheckpointError
from uno_jax.process.lock import locked
from uno_jax.process.watchdog import Watchdog
from uno_jax.run.config import RunConfig, check_config, run_layout, with_local_paths
from uno_jax.run.context import RunContext, make_encode
from uno_jax.run.dataset import buffer_facts, open_data, run_tokenizer, sampled_buffers
from uno_jax.run.encoded import check_encoded, check_features
from uno_jax.run.frozen import reading_mesh, rounded_params
from uno_jax.run.held_out import HeldOutLosses, make_held_out_losses, open_held_out
from uno_jax.run.programs import config_errors, jit_step, new_state, step_config
from uno_jax.run.resume import DATA_FILE, about_data, check_workdir, resume
from uno_jax.run.skipped import SkippedFile, Watched
from uno_jax.run.start import Start, check_trainable, model_assets, run_source, start_params, tokenizer_directory
from uno_jax.training.checkpoint_folders import DataState
from uno_jax.training.checkpoints import Checkpoints
from uno_jax.training.limits import Rewind, SkipLimit
from uno_jax.training.loop import Parts, Schedule, StepCounts, run_loop
from uno_jax.training.metrics import LogWindow, MetricsWriter, Progress, read_metrics
from uno_jax.training.profiler import Profiler
from uno_jax.training.report import held_out_table, startup_table
from uno_jax.training.saving import Saver
from uno_jax.training.state import Params, TrainState, merge
from uno_jax.training.step import make_gradient_probe, make_train_step
from uno_jax.training.wandb_run import WandbRun, check_wandb

HELD_OUT = "held_out/"


GeneratePictures = Callable[[int, Params], None]


def run(
    config: RunConfig,
    workdir: str | Path,
    *,
    make_generate_pictures: Callable[[RunContext], GeneratePictures] | None = None,
    console: rich.console.Console | None = None,
    resume_step: int | None = None,
    accept_changes: bool = False,
) -> bool:
    """Trains `config` in `workdir`, resuming from the newest whole checkpoint if there is one.

    `make_generate_pictures` returns the function that writes a sheet of generated pictures into the workdir every
    `config.pictures.every` steps. `resume_step` and `accept_changes` are those of `resume.resume`.

    Returns:
      True if the run reached its last step, False if a signal stopped it.

    Raises:
      LockError: another process runs in the workdir, or it cannot be written.
      ConfigError: the config is invalid or differs from the checkpoint's, or the data end before the last step.
      CheckpointError: no checkpoint is whole, or the last state could not be saved.
      FloatingPointError: a loss or gradient is not finite (`loop.run_loop`).
    """
    # All hosts compute, but only one prints and holds the lock.
    workdir, console = Path(workdir), console or rich.console.Console(quiet=jax.process_index() > 0)
    config = with_local_paths(config)
    check_config(config)
    check_wandb(config.wandb)
    check_workdir(workdir)
    locks = locked(workdir) if jax.process_index() == 0 else contextlib.nullcontext(True)
    with locks as holds, _nothing_left_empty(workdir / "checkpoints"):
        if not holds:
            console.print(f"{workdir} is on a file system without locks: start no other run in it.", soft_wrap=True)
        begin = functools.partial(_run, config, workdir, make_generate_pictures, console, accept_changes)
        position: DataState | None = None
        for left in reversed(range(config.limits.max_rewinds + 1)):
            try:
                return begin(resume_step if position is None else None, position, left)
            except Rewind as rewind:
                console.print(str(rewind), soft_wrap=True, markup=False, highlight=False)
                position = rewind.data_state
        raise AssertionError("the last attempt cannot rewind")


@contextlib.contextmanager
def _nothing_left_empty(folder: Path) -> Iterator[None]:
    """Removes a folder again after an error, such as a refusal, if it was not there before and nothing is in it."""
    was_there = folder.exists()
    try:
        yield
    except BaseException:
        if not was_there:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def _run(
    config: RunConfig,
    workdir: Path,
    make_generate_pictures: Callable[[RunContext], GeneratePictures] | None,
    console: rich.console.Console,
    accept_changes: bool,
    resume_step: int | None,
    position: DataState | None,
    rewinds: int,
) -> bool:
    """Trains until the end, a signal or a rewind. A resumed run goes on with the data at `position`, if it is given."""
    mesh = make_mesh(config.mesh)
    check_rows(config.data.rows, mesh, field="config.data.rows")
    check_rows(config.data.rows // config.optimizer.accumulation, mesh, field="config.data.rows / accumulation")
    check_trainable(config)
    mixture = open_data(config)
    held_out_records = open_held_out(config) if config.evaluation.records or config.pictures.every else None
    data = about_data(mixture)
    say = functools.partial(console.print, soft_wrap=True, markup=False, highlight=False)
    resumed = resume(config, workdir, mesh, data, say, resume_step=resume_step, accept_changes=accept_changes)
    source = run_source(config, None if resumed is None else resumed.checkpoint)
    files, tokenizer = tokenizer_directory(config, source), run_tokenizer(config, source)
    skipped = SkippedFile(workdir / _numbered("skipped.jsonl"), console)
    buffers = _first_buffers(config, mixture, tokenizer, skipped)
    batches: Any = Watched(config_errors(_batches, config, mixture, tokenizer, mesh), skipped)

    provenance = Provenance() if source is None else source.provenance()
    assets = model_assets(config, files) | provenance.with_trained(config.trainable).assets()
    assets |= {DATA_FILE: json_file(data)}
    checkpoints = Checkpoints(workdir / "checkpoints", config.checkpoint.keep, assets, config.checkpoint.keep_every)
    if resumed is None:
        start = start_params(config, mesh, reading_mesh(config, mesh))
        params, originals = rounded_params(config, start.params, mesh)
        state = new_state(config, params, mesh)
    else:
        originals = resumed.originals
        # Checkpoints keep the latch. Resuming clears it and tries the same batch again.
        state = dataclasses.replace(resumed.state, latched=jax.device_put(np.zeros((), bool), replicated(mesh)))
        config_errors(batches.set_state, resumed.data_state if position is None else position)
        params = merge(state.trainable, state.frozen)
        start = Start(params, resumed.autoencoder, f"{resumed.checkpoint}{resumed.note}")
    check_encoded(config, start.autoencoder)
    check_features(config, with_originals(state.frozen, originals).get("vision"))
    checkpoints.originals = originals

    context = RunContext(config, tokenizer, mesh, start.autoencoder, workdir, held_out_records)
    console.print(_startup(context, files, state, start, buffer_facts(config, mixture, buffers)))
    if resumed is not None and int(state.step) >= config.steps:
        console.print(
            f"The run in {workdir} is complete: {state.step} steps. Increase config.steps, or give another workdir."
        )
        _print_held_out(workdir, config.steps, console)
        return True
    with contextlib.ExitStack() as closing:
        # Closed in the opposite order, the checkpoints first. What fails meanwhile does not keep the others open.
        watchdog = closing.enter_context(
            Watchdog(
                60 * config.watchdog_minutes,
                log=workdir / _numbered("watchdog.txt"),
                detail=batches.awaited,
                tell=report_failure,
            )
        )
        closing.callback(batches.close)
        writer = None
        if jax.process_index() == 0:
            writer = _open_metrics(config, workdir, int(state.step), say)
            closing.callback(writer.close)
        progress = Progress(console, config.steps, config.log_every, start=int(state.step))
        closing.callback(progress.close)
        profiler = Profiler(config.profile, workdir / "profile", say)
        closing.callback(profiler.close)
        closing.callback(_close, checkpoints, say)
        saver = Saver(checkpoints, config.checkpoint, say)
        held_out = _held_out(context, state, console)
        parts = _parts(context, state, held_out, saver, writer, progress, make_generate_pictures)
        limit = SkipLimit(config.limits.max_consecutive_skips, say)
        parts = dataclasses.replace(
            parts,
            train_step=profiler.around(parts.train_step),
            on_pictures=parts.on_pictures and warning_if_unwritten(parts.on_pictures, say),
            skip_limit=limit,
            rewinds=rewinds,
            workdir=workdir,
            watchdog=watchdog,
        )
        state, finished = run_loop(state, batches, parts, _schedule(config))
    if finished:
        _print_held_out(workdir, config.steps, console)
    else:
        console.print(f"Stopped at step {int(state.step)} and saved a checkpoint. Run the same command to resume.")
    return finished


def warning_if_unwritten(generate: GeneratePictures, say: Callable[[str], None]) -> GeneratePictures:
    """Wraps a function that writes pictures: if it cannot, for example because the disk is full, it says so."""

    def generate_pictures(step: int, params: Params) -> None:
        try:
            generate(step, params)
        except OSError as error:
            reason = error.strerror or error
            say(f"warning: the pictures of step {step} cannot be written ({reason}). Training goes on.")

    return generate_pictures


def _open_metrics(config: RunConfig, workdir: Path, step: int, say: Callable[[str], None]) -> MetricsWriter:
    wandb_run = WandbRun(config.wandb, workdir, to_json(config), step) if config.wandb else None
    return MetricsWriter(workdir, resume_step=step, tensorboard=config.tensorboard, wandb_run=wandb_run, say=say)


def _close(checkpoints: Checkpoints, say: Callable[[str], None]) -> None:
    """Finishes the checkpoint that is being written. Its failure must not hide the error that ends the run."""
    try:
        checkpoints.close()
    except CheckpointError as error:
        say(f"{error}.")


def _first_buffers(config: RunConfig, mixture: Mixture, tokenizer: Tokenizer, skipped: SkippedFile) -> Buffers:
    """Measures the first samples of the run.

    Raises:
      TooManySkipped: too many of them would be skipped. They are listed in the file.
    """
    buffers = sampled_buffers(config, mixture, tokenizer)
    try:
        check_share(buffers, config.data, f"the first {buffers.samples:,} samples")
    except TooManySkipped as error:
        skipped.add(len(buffers.lengths) - len(buffers.long), error.skipped)
        raise
    return buffers


def _batches(config: RunConfig, mixture: Mixture, tokenizer: Tokenizer, mesh: Mesh) -> Any:
    share, layout = row_share(mesh), run_layout(config)
    check_files(config.data)
    return open_batches(mixture, config.data, layout, tokenizer, host_index=share.number, host_count=share.total)


def _numbered(name: str) -> str:
    """Returns a file name that differs from host to host, if there are several."""
    return name if jax.process_count() == 1 else f"host{jax.process_index()}-{name}"


def _schedule(config: RunConfig) -> Schedule:
    return Schedule(
        steps=config.steps,
        probe_every=config.objective.balance.every,
        evaluate_every=config.evaluation.every,
        pictures_every=config.pictures.every,
    )


def _parts(
    context: RunContext,
    state: TrainState,
    held_out: HeldOutLosses | None,
    saver: Saver,
    writer: MetricsWriter | None,
    progress: Progress,
    make_generate_pictures: Callable[[RunContext], GeneratePictures] | None,
) -> Parts:
    config, mesh = context.config, context.mesh
    parts = step_config(config)
    encode, hosts = make_encode(context), row_share(mesh).total
    window = LogWindow(config.log_every, functools.partial(gather_shares, mesh=mesh))
    constants = held_out.constants if held_out else {}

    def on_metrics(step: int, metrics: Mapping[str, float], counts: StepCounts) -> None:
        # Assumes that the other hosts' rows are equally full. Logged metrics average over hosts and are exact.
        speed = progress.update(step, metrics, counts.tokens * hosts, counts.images * hosts)
        line = window.add(step, metrics, {**counts.stats, **speed, **constants})
        if line is not None and writer is not None:
            writer.write(step, line)

    return Parts(
        train_step=jit_step(make_train_step(parts), state, mesh),
        probe=jit_step(make_gradient_probe(parts), state, mesh),
        put=lambda batch: put_rows(encode(batch), mesh),
        saver=saver,
        autoencoder=context.autoencoder_params,
        on_metrics=on_metrics,
        on_evaluate=_make_evaluate(held_out, writer) if held_out else None,
        on_pictures=make_generate_pictures(context) if make_generate_pictures and config.pictures.every else None,
    )


def _held_out(context: RunContext, state: TrainState, console: rich.console.Console) -> HeldOutLosses | None:
    """Reads the held-out records, if the run has any. Prints a warning if some of them fit no row."""
    chosen = context.config.evaluation.records
    if not chosen:
        return None
    held_out = make_held_out_losses(context, state)
    if held_out.left_out:
        console.print(
            f"Held-out losses leave out {len(held_out.left_out)} of {chosen} records. The first one: "
            f"{held_out.left_out[0].message}",
            markup=False,
            soft_wrap=True,
        )
    return held_out


def _make_evaluate(held_out: HeldOutLosses, writer: MetricsWriter | None) -> Callable[[int, TrainState], None]:
    """Returns a function that measures and logs held-out losses."""

    def evaluate(at: int, state: TrainState) -> None:
        losses = held_out.measure(state) | held_out.constants
        if writer is not None:
            writer.write(at, {HELD_OUT + name: value for name, value in losses.items()})

    return evaluate


def _startup(
    context: RunContext, tokenizer: Path, state: TrainState, start: Start, of_buffers: list[tuple[str, str]]
) -> Any:
    config, data = context.config, context.config.data
    mesh = " x ".join(f"{axis} {size}" for axis, size in context.mesh.shape.items() if size > 1) or "of one device"
    hosts = f" on {jax.process_count()} hosts" if jax.process_count() > 1 else ""
    facts = [
        *(fact for name, part in part_configs(data).items() for fact in _dataset_facts(name, part, config)),
        ("tokenizer", f"{context.tokenizer.summary}  ({tokenizer})"),
        ("parameters from", start.origin),
        ("devices", f"{context.mesh.size} ({jax.devices()[0].device_kind}), mesh {mesh}{hosts}"),
        *of_buffers,
        ("output", str(context.workdir)),
    ]
    tokens = {region: data.rows * data.capacities[region] for region in REGIONS if data.capacities[region]}
    title = f"{config.steps} steps of {data.rows} rows"
    return startup_table(title, state.trainable, state.frozen, start.autoencoder, tokens, facts)


def _dataset_facts(name: str, part: DataConfig, config: RunConfig) -> list[tuple[str, str]]:
    """Returns the start-up table's lines of a dataset."""
    splits = [split for split in (part.split, config.evaluation.split) if has_split(part.directory, split)]
    sizes = ", ".join(f"{len(open_records(part.directory, split)):,} {split}" for split in splits)
    if not name:
        return [("records", f"{sizes}  ({part.directory})"), ("method", part.method)]
    return [(f"dataset {name}", f"{sizes}, weight {config.data.mixture[name].weight:g}, method {part.method}")]


def _print_held_out(workdir: Path, steps: int, console: rich.console.Console) -> None:
    """Prints the table of held-out losses. Reads `metrics.jsonl`, which covers interrupted runs."""
    lines = [line for line in read_metrics(workdir / "metrics.jsonl") if any(key.startswith(HELD_OUT) for key in line)]
    if not lines:
        return
    first, last = (
        {name.removeprefix(HELD_OUT): float(value) for name, value in line.items() if name != "step"}
        for line in (lines[0], lines[-1])
    )
    constants = {name.removeprefix("constant/"): value for name, value in last.items() if name.startswith("constant/")}
    console.print(held_out_table(first if lines[0]["step"] == 0 else None, last, constants, steps))
