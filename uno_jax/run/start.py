"""Initial parameters of a run: random, from a checkpoint of a run, or from a directory in the public layout."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict
from jax.sharding import Mesh

from uno_jax.config import ConfigError, json_file
from uno_jax.data.mixture import tokenizer_of
from uno_jax.data.tokenizer_files import TOKENIZER_FILES
from uno_jax.interop.names import LeafPath
from uno_jax.interop.source import OrbaxCheckpoint, Source, find_source
from uno_jax.models.adapters import ADAPTERS
from uno_jax.models.config import ModelConfig, model_differences
from uno_jax.parallel.mesh import host_mesh, replicated
from uno_jax.parallel.parameters import tree_shardings, with_shardings
from uno_jax.process.errors import CheckpointError
from uno_jax.run.config import RunConfig
from uno_jax.training.initialise import (
    abstract_autoencoder,
    abstract_params,
    cast_params,
    init_autoencoder,
    init_params,
    leaf_dtype,
)
from uno_jax.training.state import OPTIONAL_PARTS, Params, is_under_any, merge, partition

# Fields of ModelConfig for optional parts, in which a checkpoint may differ from the run.
_ADDITIONS = ("num_metaqueries", "metaquery_target", "align_layer", "decoder.adapter_rank", "decoder.adapter_scale")


class Start(NamedTuple):
    """Initial parameters of a run."""

    params: Params
    autoencoder: Params
    origin: str
    """Source of the parameters, for display."""


def run_source(config: RunConfig, resumed: Path | None = None) -> Source | None:
    """Returns the source of a run's parameters: the checkpoint `resumed` if given, otherwise `init_from`.

    None means random initialisation.

    Raises:
      ConfigError: no model is found at `init_from`.
    """
    if resumed is not None:
        return OrbaxCheckpoint(resumed)
    if not config.init_from:
        return None
    try:
        return find_source(config.init_from)
    except CheckpointError as error:
        raise ConfigError(f"config.init_from: {error}") from error


def start_params(config: RunConfig, mesh: Mesh, reading: Mesh | None = None) -> Start:
    """Loads or initialises the parameters of a run, in its dtypes and shardings, according to `config.init_from`.

    They are read onto the mesh `reading` instead, if it is given.

    Raises:
      ConfigError: no model is found at `init_from`, it differs from `config.model`, or frozen parameters would be
        random.
      CheckpointMismatch, CheckpointError: the tensors do not match the source's own config files.
    """
    source, everywhere = run_source(config), replicated(host_mesh())  # each host encodes its own pictures
    if source is None:
        _reject_random(config, ("",))
        autoencoder = jax.device_put(init_autoencoder(config.model, config.seed), everywhere)
        return Start(_initialised(config, (), mesh), autoencoder, "random initialisation")
    saved = source.model()
    _compare_models(config.model, saved, source.origin)
    new = _new_parts(config.model, saved)
    _reject_random(config, new)

    def dtype(path: LeafPath) -> jnp.dtype:
        return leaf_dtype(path, config.trainable, config.trainable_dtype, config.frozen_dtype)

    params, autoencoder = source.parameters(reading or mesh, everywhere, dtype, ignored=new)
    return Start(_with_new_parts(config, params, new, mesh), autoencoder, source.origin)


def tokenizer_directory(config: RunConfig, source: Source | None) -> Path:
    """Returns the tokenizer directory of a run that starts from `source`.

    Embeddings are only valid with their own tokenizer, so the tokenizer comes with the parameters. Randomly initialised
    parameters use the dataset's. `config.data.tokenizer` overrides both.
    """
    if config.data.tokenizer or source is None:
        return tokenizer_of(config.data)
    return source.tokenizer_directory


def model_assets(config: RunConfig, tokenizer: Path) -> dict[str, bytes]:
    """Returns the files that make a checkpoint usable on another machine, by name."""
    files = {
        "config.json": json_file(config),
        "model.json": json_file(config.model),
    }
    return files | {name: (tokenizer / name).read_bytes() for name in TOKENIZER_FILES}


def _new_parts(wanted: ModelConfig, saved: ModelConfig) -> tuple[str, ...]:
    """Returns path prefixes of optional parts that differ between the models, so that the source's are not read."""
    same_queries = (wanted.num_metaqueries, wanted.metaquery_target) == (saved.num_metaqueries, saved.metaquery_target)
    same = {
        "metaqueries": same_queries,
        "align_head": wanted.align_layer == saved.align_layer,
        ADAPTERS: wanted.decoder.adapter_rank == saved.decoder.adapter_rank,
    }
    return tuple(part for part, is_same in same.items() if not is_same)


def _with_new_parts(config: RunConfig, params: Params, parts: tuple[str, ...], mesh: Mesh) -> Params:
    """Adds randomly initialised `parts` to the parameters, as far as the model has them."""
    present = partition(abstract_params(config.model), parts)[0]
    return merge(params, _initialised(config, parts, mesh)) if present else params


def _reject_random(config: RunConfig, parts: tuple[str, ...]) -> None:
    """Rejects a start that initialises `parts` randomly and never trains them, unless the config asks for it."""
    if config.random_frozen:
        return
    initialised = partition(abstract_params(config.model), parts)[0]
    frozen = {"/".join(path[:2]): None for path in flatten_dict(initialised) if not _is_trained(config, path)}
    if parts == ("",) and abstract_autoencoder(config.model):
        frozen["autoencoder"] = None
    if frozen:
        raise ConfigError(
            f"config.init_from is {config.init_from!r}, so these parameters would be random and stay so, because "
            f"config.trainable does not name them: {', '.join(frozen)}. Give a model that has them as "
            "config.init_from, or set config.random_frozen=True if this is what you want"
        )


def check_trainable(config: RunConfig) -> None:
    """Requires `config.trainable` to name parameters. Optional parts may be named although the model lacks them.

    Raises:
      ConfigError: a prefix names nothing, or no parameter would be trained.
    """
    paths = ["/".join(path) for path in flatten_dict(abstract_params(config.model))]
    expected = f"give beginnings of paths such as {', '.join(sorted({path.partition('/')[0] for path in paths}))}"
    for prefix in config.trainable:
        if not is_under_any(prefix, OPTIONAL_PARTS) and not any(is_under_any(path, [prefix]) for path in paths):
            raise ConfigError(f"config.trainable names {prefix!r}, which is no part of the model: {expected}")
    if not any(is_under_any(path, config.trainable) for path in paths):
        raise ConfigError(f"config.trainable is {config.trainable}, so nothing would be trained: {expected}")


def _is_trained(config: RunConfig, path: tuple[str, ...]) -> bool:
    return is_under_any("/".join(path), config.trainable)


def abstract_run_params(config: RunConfig, mesh: Mesh) -> Params:
    """Returns shapes, dtypes and shardings of the run's parameters."""
    return with_shardings(_cast(config, abstract_params(config.model)), mesh)


def _initialised(config: RunConfig, parts: tuple[str, ...], mesh: Mesh) -> Params:
    place = functools.partial(tree_shardings, mesh=mesh)
    return _cast(config, init_params(config.model, config.seed, parts, place))


def _cast(config: RunConfig, params: Params) -> Params:
    return cast_params(params, config.trainable, config.trainable_dtype, config.frozen_dtype)


def _compare_models(wanted: ModelConfig, saved: ModelConfig, where: str) -> None:
    """Requires the models to be the same except for optional parts."""
    different = model_differences(wanted, saved)
    # Dropping trained adapters, or reading them with another scale, would silently change the model.
    free = [name for name in _ADDITIONS if not (saved.decoder.adapter_rank and name.startswith("decoder.adapter"))]
    _reject_differences(
        {name: values for name, values in different.items() if name not in free}, f"config.init_from: {where}"
    )


def _reject_differences(different: Mapping[str, tuple[Any, Any]], where: str) -> None:
    if different:
        lines = [
            f"config.model.{name} is {ours!r}, in the checkpoint {theirs!r}"
            for name, (ours, theirs) in different.items()
        ]
        raise ConfigError(f"{where}: the model differs from the config's:\n  " + "\n  ".join(lines))
