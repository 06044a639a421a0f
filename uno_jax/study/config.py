"""The config of a study: data, base, arms, and what is scored."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from uno_jax.config import ConfigError, range_rules

BEFORE = "base"
"""Name under which the base itself is scored, beside the arms."""


@dataclass(frozen=True)
class DatasetPlan:
    """The dataset of all runs."""

    options: tuple[str, ...] = ("dataset=scenes",)
    """Flags of `prepare_data` without dashes, `name=value`."""
    directory: str = ""
    """A prepared dataset to use instead."""


@dataclass(frozen=True)
class RunPlan:
    """A run: a config, and changes to it."""

    config: str
    """Name of a built-in config such as `scenes_sft`, or path of a config file."""
    changes: tuple[str, ...] = ()
    """`field=value`, such as `optimizer.learning_rate=3e-4`."""


@dataclass(frozen=True)
class BasePlan:
    """The models that the arms start from."""

    stages: tuple[RunPlan, ...] = ()
    """Consecutive runs, each of which starts from the one before."""
    vision_steps: int = 0
    """Steps that the vision encoder of the first run is pre-trained for, alone; 0 = it begins random, and so does the
    autoencoder."""
    autoencoder_steps: int = 4000
    """Steps that the autoencoder is pre-trained for after the vision encoder, if it has parameters."""
    count: int = 1
    """Number of bases, which differ in their seed."""
    checkpoint: str = ""
    """A trained model to use as the only base instead."""


@dataclass(frozen=True)
class Arm:
    """One way to post-train the base."""

    name: str
    config: str
    """Name of a built-in config, or path of a config file."""
    changes: tuple[str, ...] = ()
    grid: tuple[tuple[str, ...], ...] = ()
    """Changes to choose from on development prompts, one run each; empty: not tuned."""
    scale: float = 1.0
    """Guidance scale of an arm that is not tuned. Tuning chooses it from `TuningPlan.scales`."""
    seeds: int = 0
    """Runs per base; 0 = the study's."""
    steps: int = 0
    """Steps of each run; 0 = the study's. More for a fast arm give a comparison at equal time."""


@dataclass(frozen=True)
class Evaluation:
    """One thing that is measured of a checkpoint."""

    kind: Literal["draw", "edit", "read"]
    """`draw`: pictures of prompts; `edit`: edits of pictures; `read`: captions and answers of pictures."""
    split: str = "test"
    records: int = 1000
    """Number of records: the first ones of the split with the task. Fewer if the split has fewer."""
    scale: float = 0.0
    """Guidance scale; up to 1 = no guidance. 0 = the best of the arm."""

    @property
    def name(self) -> str:
        """Name in folders and tables."""
        scale = f"scale{self.scale:g}" if self.scale else "best_scale"
        return "_".join((self.kind, self.split, str(self.records), *(() if self.kind == "read" else (scale,))))

    @property
    def kind_of_unit(self) -> str:
        """Kind of its unit: evaluations of one kind take the same time for each record."""
        if self.kind == "read":
            return "read"
        return f"{self.kind} at scale {self.scale:g}" if self.scale else f"{self.kind} at the best scale"


@dataclass(frozen=True)
class TuningPlan:
    """How the changes of each arm's grid are compared: one run of each from the first base."""

    steps: int = 0
    """Steps of each run; 0 = the study's."""
    split: str = "dev"
    records: int = 500
    scales: tuple[float, ...] = (1.0, 2.0, 4.0)
    """Guidance scales to choose from."""


@dataclass(frozen=True)
class SamplingPlan:
    """How pictures and texts are generated for scoring."""

    timesteps: int = 25
    batch: int = 64
    """Pictures or texts per batch."""
    caption_tokens: int = 64
    """Maximum length of a written text in tokens, start token included."""
    ema: bool = False
    """Whether EMA weights are scored instead of the parameters. A base that is given may have none."""
    times: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    """Times t of the noised latents that captions are read from."""
    pictures: int = 24
    """Pictures of each evaluation that are kept, for the sheets."""


@dataclass(frozen=True)
class StudyConfig:
    """Everything that determines a study."""

    title: str = "Does supervision by the understanding expert help?"
    reference: str = "sft"
    """The arm that the others are compared with."""
    data: DatasetPlan = field(default_factory=DatasetPlan)
    base: BasePlan = field(default_factory=BasePlan)
    arms: tuple[Arm, ...] = ()
    seeds: int = 1
    """Runs of each arm per base."""
    steps: int = 1000
    """Steps of every run of an arm that does not say otherwise."""
    score_every: int = 0
    """Steps between checkpoints that `curve` is measured of; 0 = none."""
    curve: tuple[Evaluation, ...] = ()
    final: tuple[Evaluation, ...] = (Evaluation("draw"),)
    """What is measured of every base and of the last checkpoint of every run."""
    reading: Evaluation = Evaluation("read", records=200)
    """How well each base reads, before anything else is run."""
    tuning: TuningPlan = field(default_factory=TuningPlan)
    sampling: SamplingPlan = field(default_factory=SamplingPlan)
    difference: float = 0.03
    """The difference of accuracies that the study should resolve."""

    def seeds_of(self, arm: Arm) -> int:
        """Number of runs per base of an arm."""
        return arm.seeds or self.seeds

    def steps_of(self, arm: Arm) -> int:
        """Steps of each final run of an arm."""
        return arm.steps or self.steps

    def bases(self) -> int:
        """Number of bases."""
        return 1 if self.base.checkpoint else self.base.count


def check_study(config: StudyConfig) -> None:
    """Checks what the fields' types do not.

    Raises:
      ConfigError: fields are invalid. The message names each of them and says what to do.
    """
    problems = [message for holds, message in _rules(config) if not holds]
    if problems:
        raise ConfigError("\n".join(problems))


def _rules(config: StudyConfig) -> Iterator[tuple[bool, str]]:
    names = [arm.name for arm in config.arms]
    repeated = [name for name, count in Counter([*names, BEFORE]).items() if count > 1]
    yield (
        not repeated,
        f"config.arms: the name {', '.join(repeated)} is given twice, or is that of the bases ({BEFORE})",
    )
    yield (
        config.reference in names,
        f"config.reference is {config.reference!r}: expected one of the arms ({', '.join(names) or 'none is given'})",
    )
    yield (
        bool(config.base.stages) != bool(config.base.checkpoint),
        "config.base: give either stages to train or a checkpoint to start from",
    )
    ranges = (
        ("tuning.steps", 0),
        ("tuning.records", 1),
        ("sampling.timesteps", 2),
        ("sampling.batch", 1),
        ("sampling.caption_tokens", 2),
        ("sampling.pictures", 0),
        ("score_every", 0),
        ("reading.records", 1),
    )
    yield from range_rules(config, ((name, least, math.inf) for name, least in ranges))
    for place in ("curve", "final"):
        for number, evaluation in enumerate(getattr(config, place)):
            at = f"config.{place}[{number}]"
            yield evaluation.records >= 1, f"{at}.records is {evaluation.records}: give at least 1"
            yield 0 <= evaluation.scale < math.inf, f"{at}.scale is {evaluation.scale}: give a finite number, 0 or more"
    for number, scale in enumerate(config.tuning.scales):
        yield 0 < scale < math.inf, f"config.tuning.scales[{number}] is {scale}: give a positive, finite number"
    for number, time in enumerate(config.sampling.times):
        yield 0 <= time <= 1, f"config.sampling.times[{number}] is {time}: give a number from 0 to 1"
    for arm in config.arms:
        yield (
            0 < arm.scale < math.inf,
            f"config.arms: scale of {arm.name} is {arm.scale}: give a positive, finite number",
        )
        yield arm.seeds >= 0, f"config.arms: seeds of {arm.name} is {arm.seeds}: give at least 0"
        yield arm.steps >= 0, f"config.arms: steps of {arm.name} is {arm.steps}: give at least 0"
        yield (
            config.score_every <= 0 or arm.steps % config.score_every == 0,
            f"config.score_every is {config.score_every}: give a divisor of the "
            f"steps of {arm.name} ({arm.steps}), or 0",
        )
    yield 0 < config.difference < 1, f"config.difference is {config.difference}: give a number between 0 and 1"
    yield config.base.count >= 1, f"config.base.count is {config.base.count}: give at least 1"
    yield config.seeds >= 1, f"config.seeds is {config.seeds}: give at least 1"
    yield config.steps >= 1, f"config.steps is {config.steps}: give at least 1"
    budgets = {arm.name: len(arm.grid) for arm in config.arms if arm.grid}
    yield (
        len(set(budgets.values())) < 2,
        "config.arms: every tuned arm must have the same budget, but the grids have "
        f"{', '.join(f'{count} points ({name})' for name, count in budgets.items())}",
    )
    yield (
        bool(config.tuning.scales) or not budgets,
        "config.tuning.scales is empty: give the guidance scales to choose from",
    )
    yield (
        config.score_every <= 0 or config.steps % config.score_every == 0,
        f"config.score_every is {config.score_every}: give a divisor of config.steps ({config.steps}), or 0",
    )
    yield (
        config.reading.kind == "read",
        f"config.reading.kind is {config.reading.kind!r}: expected 'read'",
    )
    for place in ("curve", "final"):
        chosen = [evaluation.name for evaluation in getattr(config, place)]
        yield len(set(chosen)) == len(chosen), f"config.{place} has the same evaluation twice"
