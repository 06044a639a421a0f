"""The checkpoint to look inside, and its inputs."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.typing import DTypeLike

from uno_jax.batch import Batch
from uno_jax.config import ConfigError, from_config_dict
from uno_jax.data.layout import lay_out
from uno_jax.data.methods import Inputs, MethodConfig, make_sample
from uno_jax.data.plans import NoisedTarget, Plan
from uno_jax.data.record import Record
from uno_jax.data.rows import make_batch, pack_row
from uno_jax.data.transforms import ImageTransform
from uno_jax.inference.reader import Reader, load_reader
from uno_jax.interop.json_object import read_object, section
from uno_jax.interop.provenance import Provenance
from uno_jax.interop.source import OrbaxCheckpoint, Source, find_source
from uno_jax.models.config import ModelConfig, training_layout
from uno_jax.objectives.config import ObjectiveConfig
from uno_jax.parallel.mesh import MeshConfig
from uno_jax.process.errors import CheckpointError, UserError

SEED = 0
"""All random numbers derive from this and the number of a record, so that they are the same for every checkpoint."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was found and not loaded."""

    name: str
    """Name on sheets and in reports."""
    path: str
    config: ModelConfig
    inputs: Inputs
    objective: ObjectiveConfig
    """The objective of its training run; the defaults, if no file states one."""
    provenance: Provenance

    @property
    def states(self) -> int:
        """Number of states of a token: the input of the first layer, and the output of every layer."""
        return self.config.decoder.num_layers + 1


@dataclass(frozen=True)
class Subject:
    """A loaded checkpoint."""

    checkpoint: Checkpoint
    reader: Reader

    @property
    def config(self) -> ModelConfig:
        """Sizes of the model, in the dtype that it was loaded with."""
        return self.reader.model.config


def find_checkpoints(paths: Sequence[str]) -> list[Checkpoint]:
    """Finds the checkpoints at the paths, which must cut a picture into the same tokens.

    They are named by `short_names`.

    Raises:
      CheckpointError: there is no checkpoint at a path, or one of its small files is damaged.
      UserError: a path is given twice, or the tokens differ.
    """
    if len(set(paths)) < len(paths):
        raise UserError(f"the checkpoint {max(paths, key=paths.count)} is given twice: give each once")
    names = short_names(paths)
    found = [_checkpoint(path, name) for path, name in zip(paths, names, strict=True)]
    for each in found[1:]:
        if _tokens(each) != _tokens(found[0]):
            raise UserError(
                f"{found[0].name} and {each.name} cut a picture into different tokens ({_tokens(found[0])}; "
                f"{_tokens(each)}), so they cannot be compared: look at each alone"
            )
    return found


def load_subject(
    checkpoint: Checkpoint, *, ema: bool = False, dtype: DTypeLike | None = None, mesh: MeshConfig | None = None
) -> Subject:
    """Loads the parameters of a checkpoint; options as for `load_reader`.

    Raises:
      CheckpointError, CheckpointMismatch, ConfigError: as for `load_reader`.
    """
    return Subject(checkpoint, load_reader(checkpoint.path, ema=ema, dtype=dtype, mesh=mesh))


def short_names(paths: Sequence[str]) -> list[str]:
    """Returns a name for each path: the last folder that is not `checkpoints`, or what tells equal ones apart.

    `base`, `runs/sft/b0/run` and `runs/uno/b0/run` are named `base`, `sft` and `uno`.
    """
    parts = [tuple(part for part in Path(path).parts if part != "checkpoints") or (path,) for path in paths]
    names: dict[tuple[str, ...], str] = {}
    for last in dict.fromkeys(each[-1] for each in parts):
        group = [each for each in dict.fromkeys(parts) if each[-1] == last]
        names |= dict(zip(group, _told_apart(group), strict=True))
    listed = [names[each] for each in parts]
    return list(paths) if len(set(listed)) < len(listed) else listed


def _told_apart(group: Sequence[tuple[str, ...]]) -> list[str]:
    """Returns the shortest ends that differ of paths, without the end that all have in common."""
    if len(group) == 1:
        return [group[0][-1]]
    common = 0
    while len({each[-common - 1 :][:1] for each in group}) == 1 and min(map(len, group)) > common + 1:
        common += 1
    cut = [each[: len(each) - common] for each in group]
    length = next(n for n in itertools.count(1) if len({each[-n:] for each in cut}) == len(cut))
    return ["/".join(each[-length:]) for each in cut]


def _tokens(checkpoint: Checkpoint) -> str:
    config, transform = checkpoint.config, checkpoint.inputs.vae_transform
    return (
        f"{config.latent_size} features per {config.pixels_per_token} pixels, "
        f"sides of {transform.min_side} to {transform.max_side} pixels"
    )


def _checkpoint(path: str, name: str) -> Checkpoint:
    source = find_source(path)
    config, settings = source.model(), source.settings()
    objective, metaquery_transform = _training(source, config)
    return Checkpoint(
        name=name,
        path=path,
        config=config,
        inputs=Inputs(source.tokenizer(), settings.vae_transform, settings.vit_transform, metaquery_transform),
        objective=dataclasses.replace(objective, time_shift=settings.time_shift),
        provenance=source.provenance(),
    )


def _training(source: Source, model: ModelConfig) -> tuple[ObjectiveConfig, ImageTransform]:
    """Returns the objective and the metaquery transform of the training run.

    A missing objective is the default, and a missing transform gives the largest square with a metaquery per patch.
    """
    file = source.path / "assets" / "config.json"
    fields = read_object(file) if isinstance(source, OrbaxCheckpoint) else {}
    objective, data = (section(fields, name, str(file)) for name in ("objective", "data"))
    side = max(math.isqrt(model.num_metaqueries), 1) * model.vision.patch_size  # never used without metaqueries
    square: dict[str, Any] = {"max_side": side, "min_side": side, "stride": model.vision.patch_size}
    transform = data.get("metaquery_transform", square)
    try:
        return (
            from_config_dict(objective, ObjectiveConfig, f"{file}: objective"),
            from_config_dict(transform, ImageTransform, f"{file}: metaquery_transform"),
        )
    except ConfigError as error:
        raise CheckpointError(str(error)) from error


def plans_of(subject: Subject, records: Sequence[Record]) -> list[Plan]:
    """Returns the plan of each record with its prompt and all supervision that the model has the parts for."""
    method = MethodConfig(method="uno" if subject.config.num_metaqueries else "uno_caption")
    return [
        make_sample(record, method, subject.checkpoint.inputs, np.random.default_rng((SEED, number))).plan
        for number, record in enumerate(records)
    ]


def noised_only(plan: Plan, *, context: bool) -> Plan:
    """Removes the supervision from a plan, and its context unless `context`."""
    return (*(plan[:-1] if context else ()), NoisedTarget(pixels=target_of(plan).pixels))


def target_of(plan: Plan) -> NoisedTarget:
    """Returns the noised target, the last item of a plan."""
    target = plan[-1]
    assert isinstance(target, NoisedTarget)
    return target


def grid_of(plan: Plan, subject: Subject) -> tuple[int, int]:
    """Returns rows and columns of the target's latent tokens."""
    height, width, _ = target_of(plan).pixels.shape
    return height // subject.config.pixels_per_token, width // subject.config.pixels_per_token


def encoded_batches(
    subject: Subject, plans: Sequence[Plan], rows: int, numbers: Sequence[int] | None = None
) -> list[Batch]:
    """Lays out one plan per row, and encodes the pictures.

    All batches have the same shape, so that a program is compiled once. They are kept in host memory.

    Args:
      subject: the model.
      plans: the plans, at least one.
      rows: plans per batch; the last batch is filled with padding.
      numbers: number of each plan, which determines its random numbers; default: 0, 1, 2, ...
    """
    layout, tokenizer = training_layout(subject.config), subject.checkpoint.inputs.tokenizer
    numbers = range(len(plans)) if numbers is None else numbers
    samples = [lay_out(plan, layout, tokenizer, occurrence=number) for plan, number in zip(plans, numbers, strict=True)]
    capacities = {region: max(len(sample[region]) for sample in samples) for region in samples[0]}
    packed = [pack_row([sample], capacities, layout) for sample in samples]
    packed += [pack_row([], capacities, layout)] * (-len(samples) % rows)
    chunks = [packed[start : start + rows] for start in range(0, len(packed), rows)]
    batches: list[Batch] = [jax.device_get(subject.reader.encoded(make_batch(chunk))) for chunk in chunks]
    return batches
