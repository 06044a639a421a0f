"""Resumes a run: finds its newest whole checkpoint, checks what has changed since, and restores its state."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from jax.sharding import Mesh

from uno_jax.config import ConfigError
from uno_jax.data.annex import open_annex
from uno_jax.data.captions import KIND as CAPTIONS
from uno_jax.data.mixture import Mixture, part_configs
from uno_jax.data.records import splits_of
from uno_jax.data.tokenizer_files import TOKENIZER_FILES
from uno_jax.interop.json_object import read_object
from uno_jax.interop.source import OrbaxCheckpoint
from uno_jax.models.quantised import Originals
from uno_jax.objectives.losses import needs
from uno_jax.parallel.hosts import gather_json, together
from uno_jax.parallel.mesh import host_mesh, replicated
from uno_jax.process.errors import CheckpointError, CheckpointMismatch
from uno_jax.run.changes import Change, changes, learning_rate_line
from uno_jax.run.config import RunConfig
from uno_jax.run.frozen import rounded_state, stored_state
from uno_jax.training.checkpoint_folders import (
    DataState,
    check_files,
    find_checkpoint,
    has_anchor,
    has_ema,
    is_of_run,
    saved_steps,
    set_aside,
)
from uno_jax.training.checkpoints import restore_state
from uno_jax.training.state import Params, TrainState

DATA_FILE = "data.json"
"""Asset of a checkpoint that names the data of the run."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Resumed:
    """What a run goes on from."""

    checkpoint: Path
    state: TrainState
    data_state: DataState
    autoencoder: Params
    originals: Originals
    """Frozen kernels that are int8 in the state, as in the checkpoint."""
    note: str = ""
    """What the checkpoint lacks, for the start-up table."""


def resume(
    config: RunConfig,
    workdir: Path,
    mesh: Mesh,
    data: Mapping[str, str],
    say: Say,
    *,
    resume_step: int | None = None,
    accept_changes: bool = False,
) -> Resumed | None:
    """Restores the newest whole checkpoint of the run in `workdir`. Returns None for a new run. Called by all hosts.

    Checkpoints that are damaged, and those after `resume_step`, are renamed, so that the run can save these steps
    again.

    Args:
      config: the config of the run.
      workdir: its folder.
      mesh: mesh to restore the state onto.
      data: the data of the run, from `about_data`.
      say: shows a line to the user.
      resume_step: restores the checkpoint of this step, or none.
      accept_changes: accepts fields of the config that differ from the checkpoint's, as far as its state fits them.

    Raises:
      ConfigError: the workdir is not a run's, there is no checkpoint of `resume_step`, or the config or the data differ
        from the checkpoint's. The message names every field with both values.
      CheckpointError: no checkpoint is whole. The message says what each lacks.
    """
    folder = (workdir / "checkpoints").resolve()
    steps = _steps_on_all_hosts(folder, workdir)
    if resume_step is not None and resume_step not in steps:
        advice = "Give one of these" if steps else "Omit --resume_step to start a new run"
        raise ConfigError(f"--resume_step is {resume_step}, but {folder} has checkpoints of {_listed(steps)}. {advice}")
    if not steps:
        return None
    damaged: dict[int, CheckpointError] = {}
    for step in reversed(steps) if resume_step is None else [resume_step]:
        try:
            resumed = _restore(folder / str(step), config, mesh, data, say, accept_changes=accept_changes)
            break
        except CheckpointMismatch:
            raise
        except CheckpointError as error:
            damaged[step] = error
    else:
        others = [step for step in steps if step not in damaged]
        advice = f"give --resume_step with another step ({_listed(others)})" if others else "give another workdir"
        reasons = "".join(f"\n  {reason}" for reason in damaged.values())
        raise CheckpointError(f"{workdir}: no checkpoint to resume from is whole; {advice}:{reasons}")
    chosen = int(resumed.checkpoint.name)
    for path, reason in zip(set_aside(folder, list(damaged), "damaged"), damaged.values(), strict=True):
        say(
            f"Resuming from step {chosen}, because a newer checkpoint is damaged, and renamed to {path.name}. {reason}."
        )
    newer = [step for step in steps if step > chosen and step not in damaged]
    for path in set_aside(folder, newer, "unused"):
        say(f"Resuming from step {chosen} as asked; a newer checkpoint is renamed to {path.name}.")
    return resumed


def _restore(
    checkpoint: Path, config: RunConfig, mesh: Mesh, data: Mapping[str, str], say: Say, *, accept_changes: bool
) -> Resumed:
    """Restores one checkpoint after it was compared with the config."""
    has_checksums = together(lambda: check_files(checkpoint, resumable=True))
    source, saved = OrbaxCheckpoint(checkpoint), read_object(checkpoint / "assets" / "config.json")
    found = changes(config, saved, source.model())
    accepted = [*found, *_content_changes(checkpoint, config, data)]
    refused = [change for change in accepted if not change.possible or not (change.free or accept_changes)]
    if refused:
        raise ConfigError(_refusal(checkpoint, refused))
    if "start" in needs(config.objective) and not has_anchor(checkpoint):
        raise ConfigError(
            f"config.objective.anchor_weight is {config.objective.anchor_weight}, but the run of {checkpoint} did not "
            "keep the parameters that it started from: set anchor_weight to 0, or start a new run from the checkpoint "
            f"with --config.init_from={checkpoint} and another workdir"
        )
    try:
        stored, data_state = restore_state(checkpoint, stored_state(config, mesh))
    except CheckpointMismatch as error:
        _raise_for_changes(error, checkpoint, found)
    state, originals = rounded_state(config, stored, mesh)
    autoencoder = together(lambda: source.autoencoder_params(replicated(host_mesh())))
    step = int(checkpoint.name)
    if not has_checksums:
        say(f"{checkpoint} has no checksums, because an earlier version wrote it, so its arrays are not checked.")
    if accepted:
        say("Changed since the checkpoint:" + "".join(f"\n  {change}" for change in accepted))
    line = learning_rate_line(config, saved, step)
    if line is not None:
        say(line)
    note = " (it has no EMA weights: the EMA starts from the parameters)"
    note = note if state.ema and not has_ema(checkpoint) else ""
    return Resumed(checkpoint, state, data_state, autoencoder, originals, note)


def _content_changes(checkpoint: Path, config: RunConfig, data: Mapping[str, str]) -> list[Change]:
    """Compares the contents behind fields that name folders: the records and the tokenizer."""
    assets, found = checkpoint / "assets", []
    if (assets / DATA_FILE).is_file():  # checkpoints of earlier versions have none
        saved = read_object(assets / DATA_FILE)
        if saved.get("fingerprint") != data["fingerprint"]:
            before = f"other records (in {saved.get('directory')})"
            found.append(Change("data.directory", before, data["directory"], free=False))
        if saved.get("captions", "") != data["captions"]:
            before = "other captions" if saved.get("captions") else ""
            now = ", ".join(part.captions for part in part_configs(config.data).values() if part.captions)
            found.append(Change("data.captions", before, now, free=False))
    own = config.data.tokenizer
    if own and any((Path(own) / name).read_bytes() != (assets / name).read_bytes() for name in TOKENIZER_FILES):
        found.append(Change("data.tokenizer", "another tokenizer", own, free=False))
    return found


def _refusal(checkpoint: Path, refused: Sequence[Change]) -> str:
    lines = "".join(f"\n  {change}" for change in refused)
    if any(not change.possible for change in refused):
        return (
            f"{checkpoint}: the model differs from the config's. Use the checkpoint's model (config.json in its assets "
            f"folder), or give another workdir:{lines}"
        )
    return (
        f"{checkpoint}: the config differs in fields that change what the run computes. Set them back, give another "
        f"workdir, or accept the changes with --accept_changes:{lines}"
    )


def _raise_for_changes(error: CheckpointMismatch, checkpoint: Path, found: Sequence[Change]) -> NoReturn:
    """Raises an error that names the changed fields which may be why the state does not fit the config's."""
    shaping = [change for change in found if change.name.startswith(("optimizer.", "trainable", "model."))]
    if not shaping:
        raise error
    lines = "".join(f"\n  {change}" for change in shaping)
    raise ConfigError(f"{checkpoint}: its state does not fit the config, so these changes cannot be taken:{lines}")


def check_workdir(workdir: Path) -> None:
    """Rejects a workdir that is an imported model, a folder inside another run, or a dataset.

    Other commands would later take the model found there for this run's.

    Raises:
      ConfigError: the workdir is not a run's.
    """
    found = find_checkpoint(workdir) or find_checkpoint(workdir / "checkpoints")
    if found is not None and (found.parent != (workdir / "checkpoints").resolve() or not is_of_run(found)):
        raise ConfigError(
            f"the workdir is {workdir}, but {found} is not a checkpoint that a run in it can resume from. Give a run's "
            f"own workdir to resume it, or a new workdir and --config.init_from={found} to start from that model"
        )
    if splits_of(workdir):
        raise ConfigError(f"the workdir is {workdir}, which is a dataset. Give a folder of the run's own")


def _steps_on_all_hosts(folder: Path, workdir: Path) -> list[int]:
    """Returns the steps of the checkpoints.

    Raises:
      ConfigError: the hosts find different ones.
    """
    steps = saved_steps(folder)
    found = gather_json(steps)
    if any(others != steps for others in found):
        newest = ", ".join(str(max(others, default="none")) for others in found)
        raise ConfigError(
            f"the hosts find different checkpoints in {workdir}: {newest}. Give a workdir on shared storage"
        )
    return steps


def _listed(steps: Sequence[int]) -> str:
    return f"step {', '.join(map(str, steps))}" if steps else "no step"


def about_data(mixture: Mixture) -> dict[str, str]:
    """Returns what the asset `data.json` holds: directory, split and fingerprints of the data, the same on all hosts.

    Raises:
      ConfigError: the hosts find different data.
    """
    fingerprint = "+".join(part.name + part.fingerprint for part in mixture.parts)
    where = ", ".join(part.config.directory for part in mixture.parts)
    split = mixture.parts[0].config.split
    if len(set(gather_json(fingerprint))) > 1:
        raise ConfigError(f"config.data.directory: the hosts find different data in {where}")
    written = {part.name: part.config.captions for part in mixture.parts if part.config.captions}
    captions = "+".join(name + open_annex(own, CAPTIONS).fingerprint(split) for name, own in written.items())
    return {"directory": where, "split": split, "fingerprint": fingerprint, "captions": captions}
