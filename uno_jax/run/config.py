"""The config of a training run, and the checks of it that need neither data nor devices."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass, field

from uno_jax.config import ConfigError, Dtype
from uno_jax.data.config import DataConfig
from uno_jax.models.adapters import ADAPTERS
from uno_jax.models.config import ModelConfig
from uno_jax.objectives.config import ObjectiveConfig
from uno_jax.objectives.losses import SUPERVISION
from uno_jax.parallel.mesh import MeshConfig
from uno_jax.training.checkpoints import CheckpointConfig
from uno_jax.training.optimizer import OptimizerConfig
from uno_jax.training.profiler import ProfileConfig
from uno_jax.training.state import UNO_TRAINABLE


@dataclass(frozen=True)
class EvaluationConfig:
    """Held-out losses, on the same batches with the same draws every time, nothing dropped but where it says so."""

    every: int = 0
    """Steps between evaluations; the first and the last step are always evaluated, unless `batches` is 0."""
    batches: int = 4
    """Held-out batches, each of `data.rows` rows. Read once, and kept in the host's memory."""
    split: str = "test"


@dataclass(frozen=True)
class PicturesConfig:
    """Sheets of samples, and of the captions that the understanding expert writes, of the same held-out records."""

    every: int = 0
    """Steps between sheets, and the first and the last step too; 0 = none."""
    examples: int = 8
    """Records of `evaluation.split`, evenly spaced, as many of each task that draws a picture."""
    timesteps: int = 25
    """Times that a sample passes through; they are shifted by `objective.time_shift`."""
    text_scale: float = 4.0
    """Guidance by the prompt; up to 1: none, and at half the cost."""
    caption_tokens: int = 48
    """The longest caption that is written, its start token included."""


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides what a run computes, and how often it reports."""

    seed: int = 0
    steps: int = 5000
    init_from: str = ""
    """Where the parameters come from: "" = drawn afresh; a run's workdir, its checkpoints folder or one checkpoint of
    it; or a directory in the public checkpoint's layout. Metaqueries that it lacks are drawn afresh."""
    trainable: tuple[str, ...] = UNO_TRAINABLE
    """Path prefixes of the trainable parameters; ("",) = all."""
    trainable_dtype: Dtype = "float32"
    frozen_dtype: Dtype = "float32"
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    pictures: PicturesConfig = field(default_factory=PicturesConfig)
    profile: ProfileConfig = field(default_factory=ProfileConfig)
    log_every: int = 10
    """Steps between lines of metrics; each holds the means since the line before."""
    tensorboard: bool = True
    """Whether metrics also go into TensorBoard files (metrics.jsonl is always written)."""


def check_config(config: RunConfig) -> None:
    """Demands that the sizes go together.

    Raises:
      ConfigError: naming every field that does not, and what to do.
    """
    decoder, vision, model, optimizer = config.model.decoder, config.model.vision, config.model, config.optimizer
    balance = config.objective.balance
    rules = (
        (
            decoder.num_kv_heads > 0 and decoder.num_heads % decoder.num_kv_heads == 0,
            f"config.model.decoder.num_heads is {decoder.num_heads}, no multiple of num_kv_heads "
            f"({decoder.num_kv_heads}): every key-value head serves the same number of heads",
        ),
        (
            decoder.head_dim % 2 == 0,
            f"config.model.decoder.head_dim is {decoder.head_dim}: RoPE rotates halves, give an even number",
        ),
        (
            decoder.hidden_size % 4 == 0,
            f"config.model.decoder.hidden_size is {decoder.hidden_size}: the position tables need a multiple of 4",
        ),
        (
            vision.num_heads > 0 and vision.hidden_size % vision.num_heads == 0,
            f"config.model.vision.hidden_size is {vision.hidden_size}, no multiple of num_heads ({vision.num_heads})",
        ),
        (
            model.num_metaqueries > 0 or config.data.query_tokens == 0,
            f"config.data.query_tokens is {config.data.query_tokens}, but config.model.num_metaqueries is 0: set "
            "query_tokens to 0, or give the model metaqueries",
        ),
        (
            decoder.adapter_rank > 0 or ADAPTERS not in config.trainable,
            f"config.trainable names {ADAPTERS}, but config.model.decoder.adapter_rank is {decoder.adapter_rank}: give "
            "adapters a rank",
        ),
        (
            config.objective.time_shift > 0,
            f"config.objective.time_shift is {config.objective.time_shift}: give a positive number",
        ),
        (
            balance.every > 0 or not any(loss.balance_in(config.objective) for loss in SUPERVISION),
            f"config.objective.balance.every is {balance.every}, so that the gradient norms that "
            f"{' and '.join(loss.name for loss in SUPERVISION)} of config.objective.balance ask for are never "
            "measured: give at least 1, or set them to 0",
        ),
        *_ranges(config),
        (
            optimizer.accumulation > 0 and config.data.rows % optimizer.accumulation == 0,
            f"config.data.rows is {config.data.rows}, which config.optimizer.accumulation ({optimizer.accumulation}) "
            "does not divide",
        ),
        (
            optimizer.warmup_steps <= config.steps,
            f"config.optimizer.warmup_steps is {optimizer.warmup_steps}, more than the {config.steps} steps of the run",
        ),
        (
            optimizer.metaquery_warmup_steps == 0 or model.num_metaqueries > 0,
            f"config.optimizer.metaquery_warmup_steps is {optimizer.metaquery_warmup_steps}, but "
            "config.model.num_metaqueries is 0: there is nothing to warm up",
        ),
    )
    problems = [message for holds, message in rules if not holds]
    if problems:
        raise ConfigError("\n".join(problems))


_INFINITY = float("inf")
# From the first to below the second; of numbers without an end that is below infinity, and never NaN.
_RANGES = (
    ("steps", 1, _INFINITY),
    ("log_every", 1, _INFINITY),
    ("model.num_metaqueries", 0, _INFINITY),
    ("model.decoder.num_layers", 1, _INFINITY),
    ("model.decoder.head_dim", 2, _INFINITY),
    ("model.decoder.scan_unroll", 1, _INFINITY),
    ("model.decoder.adapter_rank", 0, _INFINITY),
    ("model.vision.num_layers", 1, _INFINITY),
    ("model.vision.scan_unroll", 1, _INFINITY),
    ("objective.balance.decay", 0, 1),
    ("optimizer.learning_rate", 0, _INFINITY),
    ("optimizer.final_learning_rate", 0, _INFINITY),
    ("optimizer.warmup_steps", 0, _INFINITY),
    ("optimizer.metaquery_warmup_steps", 0, _INFINITY),
    ("optimizer.beta1", 0, 1),
    ("optimizer.beta2", 0, 1),
    ("optimizer.weight_decay", 0, _INFINITY),
    ("optimizer.clip_norm", 0, _INFINITY),
    ("optimizer.ema_decay", 0, 1),
    ("checkpoint.every", 0, _INFINITY),
    ("checkpoint.keep", 1, _INFINITY),
    ("evaluation.every", 0, _INFINITY),
    ("evaluation.batches", 0, _INFINITY),
    ("pictures.every", 0, _INFINITY),
    ("pictures.examples", 1, _INFINITY),
    ("pictures.timesteps", 2, _INFINITY),
    ("pictures.caption_tokens", 2, _INFINITY),
    ("profile.steps", 0, _INFINITY),
    ("profile.after", 0, _INFINITY),
)


def _ranges(config: RunConfig) -> Iterator[tuple[bool, str]]:
    """Whether the value of every such field is from its lowest to below its end, and what is wrong where it is not."""
    for name, lowest, end in _RANGES:
        value = operator.attrgetter(name)(config)
        expected = f"at least {lowest}" if end == _INFINITY else f"a number from {lowest} to below {end}"
        if value == _INFINITY:
            expected += ", and finite"
        yield lowest <= value < end, f"config.{name} is {value}: give {expected}"
