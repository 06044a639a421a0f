"""All units of a study, in the order of its stages."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from uno_jax.config import ConfigError, to_json
from uno_jax.run.config import RunConfig
from uno_jax.run.vision import VisionPlan, pretrain_vision
from uno_jax.study.config import BEFORE, Arm, Evaluation, RunPlan, StudyConfig
from uno_jax.study.dataset import dataset_identity, prepare_dataset
from uno_jax.study.run_configs import identity, run_config
from uno_jax.study.scoring import score
from uno_jax.study.training import train
from uno_jax.study.unit import Done, Json, Unit
from uno_jax.training.checkpoint_folders import find_checkpoint

STAGES = ("data", "base", "reading", "tune", "runs", "scores")
"""Stages with units, in order. The report follows."""


class Pair(NamedTuple):
    """A base and a seed."""

    base: int
    seed: int

    @property
    def name(self) -> str:
        return f"b{self.base}s{self.seed}"

    @property
    def random(self) -> int:
        """Seed of everything random in a run of this pair. It is the same for all arms."""
        return 1000 * (self.base + 1) + self.seed


# Seed of the runs of the grids. Final runs have others, so that a lucky draw that was chosen does not count again.
_TUNING = Pair(0, 900)


class Subject(NamedTuple):
    """A checkpoint that is scored."""

    unit: str
    """The run that made it."""
    step: int | None = None
    """None: its last."""


@dataclass(frozen=True)
class Chosen:
    """What tuning chose for an arm."""

    changes: tuple[str, ...]
    scale: float


@dataclass(frozen=True)
class Study:
    """A study's config, and its folder."""

    config: StudyConfig
    folder: Path

    @property
    def done(self) -> Done:
        """Results so far."""
        return Done(self.folder)

    @property
    def dataset(self) -> Path:
        """Directory of the dataset."""
        given = self.config.data.directory
        return Path(given) if given else self.folder / "data" / "dataset"

    def base_unit(self, base: int) -> str:
        """Name of the unit whose result is a base."""
        stages = len(self.config.base.stages)
        return f"base/b{base}/{f'stage{stages}' if stages else 'given'}"

    def pairs(self, arm: Arm) -> list[Pair]:
        """The final runs of an arm."""
        return [Pair(b, s) for b in range(self.config.bases()) for s in range(self.config.seeds_of(arm))]

    def run_unit(self, arm: Arm, pair: Pair) -> str:
        """Name of a final run."""
        return f"runs/{arm.name}/{pair.name}"

    def tuning_unit(self, name: str, point: int) -> str:
        """Name of the run of a point of an arm's grid; for the bases, of the base that is scored."""
        return self.base_unit(0) if name == BEFORE else f"tune/{name}/g{point:02}"

    def tuning_evaluations(self) -> list[Evaluation]:
        """What the points of the grids are compared by, one per guidance scale."""
        tuning = self.config.tuning
        return [Evaluation("draw", tuning.split, tuning.records, scale) for scale in tuning.scales]

    def score_unit(self, subject: Subject, evaluation: Evaluation) -> str:
        """Name of the unit that measures a checkpoint."""
        step = "last" if subject.step is None else f"step{subject.step:06}"
        return f"{subject.unit}/scores/{step}/{evaluation.name}"

    def grid_scores(self, name: str) -> dict[tuple[int, float], str]:
        """Units that the choice for an arm (or for the bases) depends on, by grid point and guidance scale."""
        points = 1 if name == BEFORE else len(self.arm(name).grid)
        return {
            (point, evaluation.scale): self.score_unit(Subject(self.tuning_unit(name, point)), evaluation)
            for point in range(points)
            for evaluation in self.tuning_evaluations()
        }

    def arm(self, name: str) -> Arm:
        """Returns an arm by its name."""
        return next(arm for arm in self.config.arms if arm.name == name)

    def tuned(self) -> list[str]:
        """Names of the arms that are tuned. If there are any, the guidance scale of the bases is chosen as well."""
        arms = [arm.name for arm in self.config.arms if arm.grid]
        return [BEFORE, *arms] if arms else []

    def chosen(self, name: str) -> Chosen:
        """Returns what tuning chose for an arm, or for the bases. Its units must be done.

        The grid point and guidance scale with the most prompts drawn right win, of equals the first.
        """
        if name not in self.tuned():
            return Chosen((), self.arm(name).scale if name != BEFORE else self.arm(self.config.reference).scale)
        rights = {key: self.done.result(unit)["right"] for key, unit in self.grid_scores(name).items()}
        point, scale = max(rights, key=lambda key: rights[key])
        return Chosen(self.arm(name).grid[point] if name != BEFORE else (), scale)


def units(study: Study) -> list[Unit]:
    """Returns all units, in an order in which each comes after those that it needs."""
    listed = [
        *_data_units(study),
        *_base_units(study),
        *_reading_units(study),
        *_tuning_units(study),
        *_run_units(study),
        *_score_units(study),
    ]
    found: dict[str, Unit] = {}
    for unit in listed:  # what the stage `reading` measures of the bases may be among what `scores` does
        found.setdefault(unit.name, unit)
    return list(found.values())


def _data_units(study: Study) -> Iterator[Unit]:
    plan = study.config.data
    yield Unit(
        name="data",
        stage="data",
        kind="data",
        amount=1,
        needs=(),
        determined_by=lambda done: dataset_identity(plan),
        work=lambda folder, done: prepare_dataset(plan, study.dataset),
    )


def _base_units(study: Study) -> Iterator[Unit]:
    base = study.config.base
    if base.checkpoint:
        yield Unit(
            name=study.base_unit(0),
            stage="base",
            kind="base given",
            amount=1,
            needs=("data",),
            determined_by=lambda done: {"parameters": _hash_of_checkpoint(base.checkpoint)},
            work=lambda folder, done: {"checkpoint": base.checkpoint},
        )
    for number in range(0 if base.checkpoint else base.count):
        before, fields = "", {"seed": number, "data__seed": number}
        if base.vision_steps:
            before = f"base/b{number}/vision"
            vision = VisionPlan(base.vision_steps, base.autoencoder_steps)
            yield _vision_pretraining(study, before, base.stages[0], vision, fields)
        for stage, plan in enumerate(base.stages, start=1):
            name = f"base/b{number}/stage{stage}"
            yield _training(study, name, "base", f"base stage {stage}", plan, before=before, fields=fields)
            before = name


def _reading_units(study: Study) -> Iterator[Unit]:
    for base in range(study.config.bases()):
        yield _scoring(study, "reading", Subject(study.base_unit(base)), study.config.reading, BEFORE)


def _tuning_units(study: Study) -> Iterator[Unit]:
    config = study.config
    for name in study.tuned():
        points = () if name == BEFORE else study.arm(name).grid
        for point, changes in enumerate(points):
            yield _arm_training(
                study, study.tuning_unit(name, point), "tune", study.arm(name), _TUNING, changes, config.tuning.steps
            )
        for point in range(max(len(points), 1)):
            for evaluation in study.tuning_evaluations():
                yield _scoring(study, "tune", Subject(study.tuning_unit(name, point)), evaluation, name)


def _run_units(study: Study) -> Iterator[Unit]:
    for arm in study.config.arms:
        for pair in study.pairs(arm):
            yield _arm_training(study, study.run_unit(arm, pair), "runs", arm, pair)


def _score_units(study: Study) -> Iterator[Unit]:
    for name, subject, evaluation in scored(study):
        yield _scoring(study, "scores", subject, evaluation, name)


def scored(study: Study) -> Iterator[tuple[str, Subject, Evaluation]]:
    """Yields what the stage `scores` measures: name of the arm (or of the bases), checkpoint, evaluation."""
    config = study.config
    for base in range(config.bases()):
        for evaluation in dict.fromkeys((*config.final, *config.curve)):
            yield BEFORE, Subject(study.base_unit(base)), evaluation
    for arm in config.arms:
        for pair in study.pairs(arm):
            run = study.run_unit(arm, pair)
            for evaluation in config.final:
                yield arm.name, Subject(run), evaluation
            for step in curve_steps(config, arm):
                for evaluation in config.curve:
                    yield arm.name, Subject(run, step), evaluation


def curve_steps(config: StudyConfig, arm: Arm) -> range:
    """Steps of the checkpoints of an arm that the curves are measured of."""
    every = config.score_every
    return range(every, config.steps_of(arm) + 1, every) if every else range(0)


def _arm_training(
    study: Study,
    name: str,
    stage: str,
    arm: Arm,
    pair: Pair,
    changes: tuple[str, ...] | None = None,
    steps: int = 0,
) -> Unit:
    """Makes the unit of a run of an arm, with the changes of a grid point, or with those that tuning chose."""
    config = study.config
    fields: dict[str, Any] = {"seed": pair.random, "data__seed": pair.random, "steps": steps or config.steps_of(arm)}
    fields["pictures__every"] = 0  # the report has its own
    if stage == "runs" and config.score_every:
        fields |= {"checkpoint__every": config.score_every, "checkpoint__keep": len(curve_steps(config, arm)) + 1}
    plan = RunPlan(arm.config, (*arm.changes, *(changes or ())))
    waits = tuple(study.grid_scores(arm.name).values()) if changes is None and arm.name in study.tuned() else ()
    return _training(
        study,
        name,
        stage,
        f"run of {arm.name}",
        plan,
        before=study.base_unit(pair.base),
        fields=fields,
        chosen_for=arm.name if changes is None else "",
        needs=waits,
    )


def _training(
    study: Study,
    name: str,
    stage: str,
    kind: str,
    plan: RunPlan,
    *,
    before: str,
    fields: Mapping[str, Any],
    chosen_for: str = "",
    needs: tuple[str, ...] = (),
) -> Unit:
    """Makes the unit of a run that starts from the unit `before`, or from random parameters."""
    inputs = ("data", *((before,) if before else ()))

    def config(changes: tuple[str, ...]) -> RunConfig:
        return run_config(plan, changes, data__directory=str(study.dataset), **fields)

    def chosen() -> tuple[str, ...]:
        return study.chosen(chosen_for).changes if chosen_for else ()

    def work(folder: Path, done: Done) -> Json | None:
        start = str(checkpoint_of(study, Subject(before))) if before else ""
        return train(dataclasses.replace(config(chosen()), init_from=start), folder)

    return Unit(
        name=name,
        stage=stage,
        kind=kind,
        amount=config(()).steps,
        needs=(*inputs, *needs),
        inputs=inputs,
        determined_by=lambda done: identity(config(chosen())),
        work=work,
    )


def _vision_pretraining(study: Study, name: str, run: RunPlan, plan: VisionPlan, fields: Mapping[str, Any]) -> Unit:
    """Makes the unit that pre-trains the vision encoder and the autoencoder of a run."""
    config = run_config(run, data__directory=str(study.dataset), **fields)

    def work(folder: Path, done: Done) -> Json:
        with (folder / "log.txt").open("a") as file:
            right = pretrain_vision(config, plan, folder / "run", Console(file=file, width=120))
        return {"right": right}

    return Unit(
        name=name,
        stage="base",
        kind="vision encoder",
        amount=plan.steps,
        needs=("data",),
        inputs=("data",),
        determined_by=lambda done: {
            "plan": to_json(plan),
            "vision": to_json(config.model.vision),
            "autoencoder": to_json(config.model.autoencoder),
            "seed": config.seed,
        },
        work=work,
    )


def _scoring(study: Study, stage: str, subject: Subject, evaluation: Evaluation, name: str) -> Unit:
    """Makes the unit that measures a checkpoint of an arm, at the scale of the evaluation or at the arm's best."""
    config = study.config
    by_choice = evaluation.kind != "read" and not evaluation.scale
    waits = tuple(study.grid_scores(name).values()) if by_choice and name in study.tuned() else ()

    def resolved() -> Evaluation:
        return dataclasses.replace(evaluation, scale=study.chosen(name).scale) if by_choice else evaluation

    def determined_by(done: Done) -> dict[str, Json]:
        sampling = {name: value for name, value in to_json(config.sampling).items() if name != "batch"}
        return {"evaluation": to_json(resolved()), "step": subject.step, "sampling": sampling}

    return Unit(
        name=study.score_unit(subject, evaluation),
        stage=stage,
        kind=evaluation.kind_of_unit,
        amount=evaluation.records,
        needs=("data", subject.unit, *waits),
        inputs=("data", subject.unit),
        determined_by=determined_by,
        work=lambda folder, done: score(
            checkpoint_of(study, subject), study.dataset, resolved(), config.sampling, folder
        ),
    )


def checkpoint_of(study: Study, subject: Subject) -> Path:
    """Returns the directory of a checkpoint.

    Raises:
      ConfigError: it was deleted.
    """
    if subject.unit == study.base_unit(0) and study.config.base.checkpoint:
        where = Path(study.config.base.checkpoint)
    else:
        where = study.folder / subject.unit / "run" / "checkpoints"
        where = where / str(subject.step) if subject.step is not None else where
    found = find_checkpoint(where)
    if found is None:
        raise ConfigError(f"{where}: no checkpoint found. Delete {study.folder / subject.unit} to compute it again")
    return found


def _hash_of_checkpoint(directory: str) -> str:
    """Returns a hash of the parameters of a checkpoint."""
    found = find_checkpoint(directory)
    if found is None:
        raise ConfigError(f"config.base.checkpoint: {directory}: no checkpoint of a run found")
    digest = hashlib.sha256()
    for file in sorted(path for path in (found / "params").rglob("*") if path.is_file()):
        digest.update(str(file.relative_to(found)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]
