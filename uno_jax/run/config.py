"""The config of a training run, and its checks that need neither data nor devices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from uno_jax.batch import Layout
from uno_jax.config import ConfigError, Dtype, range_rules
from uno_jax.data.config import DataConfig
from uno_jax.data.mixture import part_configs
from uno_jax.models.adapters import ADAPTERS
from uno_jax.models.config import ModelConfig, training_layout
from uno_jax.models.quantised import Weights
from uno_jax.objectives.config import ObjectiveConfig
from uno_jax.objectives.losses import SUPERVISION, needs
from uno_jax.parallel.mesh import MeshConfig
from uno_jax.process.paths import local_path
from uno_jax.training.checkpoints import CheckpointConfig
from uno_jax.training.limits import LimitsConfig
from uno_jax.training.optimizer import OptimizerConfig
from uno_jax.training.profiler import ProfileConfig
from uno_jax.training.state import UNO_TRAINABLE, is_under


@dataclass(frozen=True)
class EvaluationConfig:
    """Held-out losses, of the same records with the same random draws in every run and at every evaluation.

    Each record is laid out by the run's method. Its random draws depend on its number only, not on `seed`. No
    conditions are dropped, except for losses named `prompt_dropped/...`, which drop every prompt.
    """

    every: int = 0
    """Steps between evaluations. The first and the last step are always evaluated; 0 = only these."""
    records: int = 128
    """Number of held-out records, evenly spaced over the split and balanced over the tasks that are trained, read once
    and kept in host memory; 0 = no evaluation."""
    split: str = "test"


@dataclass(frozen=True)
class PicturesConfig:
    """Sheets of samples of fixed held-out records, with captions written by the understanding expert."""

    every: int = 0
    """Steps between sheets, which are also made at the first and the last step; 0 = no sheets."""
    examples: int = 8
    """Number of records of `evaluation.split`, evenly spaced and balanced over the tasks with a target picture."""
    timesteps: int = 25
    """Number of sampling times, both ends included, shifted by `objective.time_shift`."""
    text_scale: float = 4.0
    """Scale of text guidance. Up to 1 = no guidance, at half the cost."""
    caption_tokens: int = 48
    """Maximum length of a written caption in tokens, start token included."""


@dataclass(frozen=True)
class RunConfig:
    """Everything that determines what a run computes and how often it reports."""

    seed: int = 0
    steps: int = 5000
    init_from: str = ""
    """Source of the initial parameters: "" = random initialisation; a run's workdir, its checkpoints folder or one of
    its checkpoints; or a directory in the public checkpoint's layout. Metaqueries, the head of the align loss and
    adapters missing from the source are randomly initialised."""
    random_frozen: bool = False
    """Whether parameters that are initialised randomly may be frozen. They would never be trained, so without this the
    run is refused."""
    trainable: tuple[str, ...] = UNO_TRAINABLE
    """Path prefixes of the trainable parameters; ("",) = all."""
    trainable_dtype: Dtype = "float32"
    frozen_dtype: Dtype = "float32"
    frozen_weights: Weights = "plain"
    """`int8` rounds the large kernels that are frozen (`models/quantised.py`), which takes half the memory of bfloat16.
    Their originals stay in host memory, and checkpoints hold these."""
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    pictures: PicturesConfig = field(default_factory=PicturesConfig)
    profile: ProfileConfig = field(default_factory=ProfileConfig)
    watchdog_minutes: float = 30.0
    """Minutes without progress after which a process ends itself, to be started again; 0 = never. What may compile a
    program (the first step, measuring gradients, evaluations, pictures) may take two hours. Must exceed the time that
    a checkpoint takes."""
    log_every: int = 10
    """Steps between lines of metrics. Each line averages over the steps since the previous one."""
    tensorboard: bool = True
    """Whether to write TensorBoard event files in addition to metrics.jsonl."""
    wandb: str = ""
    """Project at Weights & Biases that the metrics are written to as well; "" = none. Needs the extra `wandb`."""


def run_layout(config: RunConfig) -> Layout:
    """Returns the layout of the run's samples: with precomputed moments if `data.encoded` gives them, and with
    precomputed vision features if `data.features` does.

    Tokens state their dataset if there is a mixture.

    Raises:
      ConfigError: some of the datasets of a mixture have moments or features, and some have none.
    """

    def given(field: str, what: str) -> bool:
        found = {bool(getattr(part, field)) for part in part_configs(config.data).values()}
        if len(found) > 1:
            raise ConfigError(
                f"config.data.mixture names {what} ({field}) for some of its datasets: name them for all, or for none"
            )
        return found == {True}

    model = config.model
    return replace(
        training_layout(model),
        moments=2 * model.latent_size if given("encoded", "moments") else 0,
        features=model.vision.hidden_size if given("features", "vision features") else 0,
        features_dtype=model.compute_dtype,
        datasets=bool(config.data.mixture),
    )


def with_local_paths(config: RunConfig) -> RunConfig:
    """Expands `~` in the paths of a config.

    Raises:
      ConfigError: a path is a URL.
    """

    def local(path: str, name: str) -> str:
        try:
            return local_path(path) if path else ""
        except ValueError as error:
            raise ConfigError(f"{name}: {error}") from error

    def folders(owner: Any, names: Sequence[str], prefix: str) -> dict[str, Any]:
        return {name: local(getattr(owner, name), f"{prefix}.{name}") for name in names}

    data, own = config.data, ("directory", "captions", "encoded", "features")
    mixture = {
        name: replace(part, **folders(part, own, f"config.data.mixture.{name}")) for name, part in data.mixture.items()
    }
    data = replace(data, mixture=mixture, **folders(data, (*own, "tokenizer"), "config.data"))
    return replace(config, init_from=local(config.init_from, "config.init_from"), data=data)


def _takes_features(config: RunConfig) -> bool:
    return bool(config.data.features) or any(part.features for part in config.data.mixture.values())


def _trains_vision(config: RunConfig) -> bool:
    return any(is_under("vision", prefix) or is_under(prefix, "vision") for prefix in config.trainable)


def _trains_generation(config: RunConfig) -> bool:
    """Whether gradient norms are measured into trained parameters: the generation expert or its adapters."""
    expert = "decoder/layers/generation"
    return ADAPTERS in config.trainable or any(is_under(expert, prefix) for prefix in config.trainable)


def check_config(config: RunConfig) -> None:
    """Checks ranges of fields and the consistency of sizes.

    Raises:
      ConfigError: fields are invalid. The message names each of them and says what to do.
    """
    decoder, model, optimizer = config.model.decoder, config.model, config.optimizer
    balance = config.objective.balance
    rules = (
        (
            decoder.num_kv_heads > 0 and decoder.num_heads % decoder.num_kv_heads == 0,
            f"config.model.decoder.num_heads is {decoder.num_heads}, not a multiple of num_kv_heads "
            f"({decoder.num_kv_heads}): every key-value head must serve the same number of heads",
        ),
        (
            decoder.head_dim % 2 == 0,
            f"config.model.decoder.head_dim is {decoder.head_dim}: give an even number, because RoPE rotates halves",
        ),
        (
            decoder.hidden_size % 4 == 0,
            f"config.model.decoder.hidden_size is {decoder.hidden_size}: give a multiple of 4 for the position tables",
        ),
        *(
            (
                sizes.num_heads > 0 and sizes.hidden_size % sizes.num_heads == 0,
                f"config.model.{name}.hidden_size is {sizes.hidden_size}, not a multiple of num_heads "
                f"({sizes.num_heads})",
            )
            for name, sizes in (("vision", model.vision), ("autoencoder.transformer", model.autoencoder.transformer))
        ),
        (
            model.num_metaqueries > 0 or config.data.query_tokens == 0,
            f"config.data.query_tokens is {config.data.query_tokens}, but config.model.num_metaqueries is 0: set "
            "query_tokens to 0, or give the model metaqueries",
        ),
        (
            decoder.adapter_rank > 0 or ADAPTERS not in config.trainable,
            f"config.trainable names {ADAPTERS}, but config.model.decoder.adapter_rank is {decoder.adapter_rank}: set "
            "adapter_rank to at least 1",
        ),
        (
            config.frozen_weights == "plain" or balance.every == 0 or _trains_generation(config),
            f"config.frozen_weights is {config.frozen_weights!r}, but config.objective.balance.every is "
            f"{balance.every}, which takes gradients of a frozen generation expert: set balance.every to 0, or train "
            "the expert or its adapters",
        ),
        (
            model.align_layer > 0 or "align" not in needs(config.objective),
            "config.objective trains the align loss, but config.model.align_layer is 0: give the layer whose states it "
            f"reads, 1 to {decoder.num_layers}, usually about the middle",
        ),
        (
            model.align_layer == 0
            or not (config.data.encoded or any(part.encoded for part in config.data.mixture.values())),
            "config.data.encoded names moments, but the align loss needs the pixels under latent tokens: set encoded "
            'to "", or config.model.align_layer to 0',
        ),
        (
            model.align_layer == 0 or not _takes_features(config),
            "config.data.features names vision features, but the align loss needs those of every latent token, which "
            'are not stored: set features to "", or config.model.align_layer to 0',
        ),
        (
            not (_takes_features(config) and _trains_vision(config)),
            "config.data.features names features of a frozen vision encoder, but config.trainable trains it: set "
            'features to "", or name other parameters',
        ),
        (
            model.align_layer <= decoder.num_layers,
            f"config.model.align_layer is {model.align_layer}: expected at most the {decoder.num_layers} layers of the "
            "decoder",
        ),
        (
            0 < config.objective.time_shift < math.inf,
            f"config.objective.time_shift is {config.objective.time_shift}: give a positive number that is finite",
        ),
        (
            balance.every > 0 or not any(loss.balance_in(config.objective) for loss in SUPERVISION),
            f"config.objective.balance.every is {balance.every}, so the gradient norms that "
            f"{' and '.join(loss.name for loss in SUPERVISION)} of config.objective.balance need are never "
            "measured: give at least 1, or set these to 0",
        ),
        *range_rules(config, _RANGES),
        (
            optimizer.accumulation > 0 and config.data.rows % optimizer.accumulation == 0,
            f"config.data.rows is {config.data.rows}, not a multiple of config.optimizer.accumulation "
            f"({optimizer.accumulation})",
        ),
        (
            optimizer.warmup_steps <= config.steps,
            f"config.optimizer.warmup_steps is {optimizer.warmup_steps}, more than the {config.steps} steps of the run",
        ),
        (
            optimizer.metaquery_warmup_steps == 0 or model.num_metaqueries > 0 or model.align_layer > 0,
            f"config.optimizer.metaquery_warmup_steps is {optimizer.metaquery_warmup_steps}, but "
            "config.model.num_metaqueries and align_layer are 0: set metaquery_warmup_steps to 0",
        ),
    )
    problems = [message for holds, message in rules if not holds]
    if problems:
        raise ConfigError("\n".join(problems))


_INFINITY = math.inf
_LARGEST_INT = 2**31  # steps and sizes are int32 on devices
# As `range_rules` takes them.
_RANGES = (
    ("seed", 0, 2**32),
    ("steps", 1, _LARGEST_INT),
    ("log_every", 1, _LARGEST_INT),
    ("watchdog_minutes", 0, _INFINITY),
    ("model.latent_patch_size", 1, _LARGEST_INT),
    ("model.max_latent_size", 1, _LARGEST_INT),
    ("model.num_metaqueries", 0, _LARGEST_INT),
    ("model.align_layer", 0, _LARGEST_INT),
    ("model.decoder.hidden_size", 4, _LARGEST_INT),
    ("model.decoder.num_layers", 1, _LARGEST_INT),
    ("model.decoder.num_heads", 1, _LARGEST_INT),
    ("model.decoder.num_kv_heads", 1, _LARGEST_INT),
    ("model.decoder.head_dim", 2, _LARGEST_INT),
    ("model.decoder.mlp_size", 1, _LARGEST_INT),
    ("model.decoder.vocab_size", 1, _LARGEST_INT),
    ("model.decoder.rope_theta", 1, _INFINITY),
    ("model.decoder.norm_eps", 0, 1),
    ("model.decoder.context_length", 1, _LARGEST_INT),
    ("model.decoder.scan_unroll", 1, _LARGEST_INT),
    ("model.decoder.adapter_rank", 0, _LARGEST_INT),
    ("model.decoder.adapter_scale", 0, _INFINITY),
    *(
        (f"model.{part}.{name}", least, most)
        for part in ("vision", "autoencoder.transformer")
        for name, least, most in (
            ("hidden_size", 1, _LARGEST_INT),
            ("num_layers", 1, _LARGEST_INT),
            ("num_heads", 1, _LARGEST_INT),
            ("mlp_size", 1, _LARGEST_INT),
            ("patch_size", 1, _LARGEST_INT),
            ("table_side", 1, _LARGEST_INT),
            ("norm_eps", 0, 1),
            ("scan_unroll", 1, _LARGEST_INT),
        )
    ),
    ("model.autoencoder.base_channels", 1, _LARGEST_INT),
    ("model.autoencoder.num_residual_blocks", 1, _LARGEST_INT),
    ("model.autoencoder.latent_channels", 1, _LARGEST_INT),
    ("model.autoencoder.downsample", 1, _LARGEST_INT),
    ("model.autoencoder.scale", 1e-9, _INFINITY),
    ("model.autoencoder.shift", -_LARGEST_INT, _LARGEST_INT),
    ("objective.flow_weight", 0, _INFINITY),
    ("objective.caption_weight", 0, _INFINITY),
    ("objective.visual_weight", 0, _INFINITY),
    ("objective.answer_weight", 0, _INFINITY),
    ("objective.align_weight", 0, _INFINITY),
    ("objective.anchor_weight", 0, _INFINITY),
    ("objective.flow_time_power", 0, _INFINITY),
    ("objective.caption_time_power", 0, _INFINITY),
    ("objective.visual_time_power", 0, _INFINITY),
    ("objective.align_time_power", 0, _INFINITY),
    ("objective.balance.caption", 0, _INFINITY),
    ("objective.balance.visual", 0, _INFINITY),
    ("objective.balance.align", 0, _INFINITY),
    ("objective.balance.every", 0, _LARGEST_INT),
    ("objective.balance.decay", 0, 1),
    ("optimizer.learning_rate", 0, _INFINITY),
    ("optimizer.final_learning_rate", 0, _INFINITY),
    ("optimizer.warmup_steps", 0, _LARGEST_INT),
    ("optimizer.metaquery_warmup_steps", 0, _LARGEST_INT),
    ("optimizer.beta1", 0, 1),
    ("optimizer.beta2", 0, 1),
    ("optimizer.epsilon", 0, 1),
    ("optimizer.weight_decay", 0, _INFINITY),
    ("optimizer.clip_norm", 0, _INFINITY),
    ("optimizer.ema_decay", 0, 1),
    ("limits.max_consecutive_skips", 0, _LARGEST_INT),
    ("limits.spike_factor", 1, _INFINITY),
    ("limits.spike_window", 2, _LARGEST_INT),
    ("limits.max_rewinds", 0, _LARGEST_INT),
    ("checkpoint.every", 0, _LARGEST_INT),
    ("checkpoint.every_minutes", 0, _INFINITY),
    ("checkpoint.keep", 1, _LARGEST_INT),
    ("checkpoint.keep_every", 0, _LARGEST_INT),
    ("evaluation.every", 0, _LARGEST_INT),
    ("evaluation.records", 0, _LARGEST_INT),
    ("pictures.every", 0, _LARGEST_INT),
    ("pictures.examples", 1, _LARGEST_INT),
    ("pictures.timesteps", 2, _LARGEST_INT),
    ("pictures.text_scale", 0, _INFINITY),
    ("pictures.caption_tokens", 2, _LARGEST_INT),
    ("profile.steps", 0, _LARGEST_INT),
    ("profile.after", 0, _LARGEST_INT),
)
