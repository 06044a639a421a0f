"""Where a run's parameters come from: drawn afresh, another run's checkpoint, or a public-layout directory."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from uno_jax.config import ConfigError
from uno_jax.interop.names import LeafPath
from uno_jax.interop.source import OrbaxCheckpoint, Source, find_source
from uno_jax.models.adapters import ADAPTERS
from uno_jax.models.config import ModelConfig, model_differences
from uno_jax.parallel.mesh import host_mesh, replicated
from uno_jax.parallel.parameters import tree_shardings, with_shardings
from uno_jax.process.errors import CheckpointError
from uno_jax.run.config import RunConfig
from uno_jax.training.initialise import abstract_params, cast_params, init_autoencoder, init_params, leaf_dtype
from uno_jax.training.state import Params, merge, partition

# Fields of ModelConfig that are about additions, which a checkpoint of another method need not have.
_ADDITIONS = ("num_metaqueries", "metaquery_target", "decoder.adapter_rank", "decoder.adapter_scale")


class Start(NamedTuple):
    """The parameters that a run begins with."""

    params: Params
    autoencoder: Params
    origin: str
    """Where they came from, for people."""


def run_source(config: RunConfig, resumed: Path | None = None) -> Source | None:
    """The model that a run begins with: the checkpoint `resumed` if there is one, else what `init_from` names.

    None is for parameters that are drawn afresh.

    Raises:
      ConfigError: there is nothing at `init_from`.
    """
    if resumed is not None:
        return OrbaxCheckpoint(resumed)
    if not config.init_from:
        return None
    try:
        return find_source(config.init_from)
    except CheckpointError as error:
        raise ConfigError(f"config.init_from: {error}") from error


def start_params(config: RunConfig, mesh: Mesh) -> Start:
    """The parameters that `config.init_from` means, in the dtypes and places of the run.

    Raises:
      ConfigError: there is nothing at `init_from`, or it is of another model than `config.model`.
      CheckpointMismatch, CheckpointError: its tensors are not those that its own files announce.
    """
    source, everywhere = run_source(config), replicated(host_mesh())  # each host encodes its own pictures
    if source is None:
        autoencoder = jax.device_put(init_autoencoder(config.model, config.seed), everywhere)
        return Start(_drawn(config, (), mesh), autoencoder, "drawn afresh")
    saved = source.model()
    _compare_models(config.model, saved, source.origin)
    fresh = _fresh_parts(config.model, saved)

    def dtype(path: LeafPath) -> jnp.dtype:
        return leaf_dtype(path, config.trainable, config.trainable_dtype, config.frozen_dtype)

    params, autoencoder = source.parameters(mesh, everywhere, dtype, ignored=fresh)
    return Start(_with_fresh(config, params, fresh, mesh), autoencoder, source.origin)


def tokenizer_directory(config: RunConfig, source: Source | None) -> Path:
    """Where the tokenizer of a run is, which begins with `source`.

    The embeddings mean nothing under another tokenizer than their own, so it comes with the parameters; that of the
    dataset is for parameters that are drawn afresh. `config.data.tokenizer` is stronger than both.
    """
    if config.data.tokenizer:
        return Path(config.data.tokenizer)
    return Path(config.data.directory) / "tokenizer" if source is None else source.tokenizer_directory


def _fresh_parts(wanted: ModelConfig, saved: ModelConfig) -> tuple[str, ...]:
    """Path prefixes of what is drawn afresh, or left out, because the source has it not, or otherwise."""
    same_queries = (wanted.num_metaqueries, wanted.metaquery_target) == (saved.num_metaqueries, saved.metaquery_target)
    same_adapters = wanted.decoder.adapter_rank == saved.decoder.adapter_rank
    return (*(() if same_queries else ("metaqueries",)), *(() if same_adapters else (ADAPTERS,)))


def _with_fresh(config: RunConfig, params: Params, parts: tuple[str, ...], mesh: Mesh) -> Params:
    """The parameters, with those parts drawn afresh, as far as the model has them."""
    present = partition(abstract_params(config.model), parts)[0]
    return merge(params, _drawn(config, parts, mesh)) if present else params


def abstract_run_params(config: RunConfig, mesh: Mesh) -> Params:
    """Shapes, dtypes and places of the run's parameters."""
    return with_shardings(_cast(config, abstract_params(config.model)), mesh)


def _drawn(config: RunConfig, parts: tuple[str, ...], mesh: Mesh) -> Params:
    place = functools.partial(tree_shardings, mesh=mesh)
    return _cast(config, init_params(config.model, config.seed, parts, place))


def _cast(config: RunConfig, params: Params) -> Params:
    return cast_params(params, config.trainable, config.trainable_dtype, config.frozen_dtype)


def _compare_models(wanted: ModelConfig, saved: ModelConfig, where: str) -> None:
    """Demands that the models are the same but for additions of the wanted one."""
    different = model_differences(wanted, saved)
    # Leaving trained adapters out, or reading them with another scale, would change the model without a word.
    free = [name for name in _ADDITIONS if not (saved.decoder.adapter_rank and name.startswith("decoder.adapter"))]
    _refuse({name: values for name, values in different.items() if name not in free}, f"config.init_from: {where}")


def check_resumed(config: RunConfig, checkpoint: Path) -> None:
    """Demands that the model of a checkpoint, from which a run is to go on, is the run's, additions included.

    Raises:
      ConfigError: it is another; every field is named with both values.
      CheckpointError: its `model.json` is missing or damaged.
    """
    advice = "; to go on from it take its model (config.json in its assets folder), or else give another workdir"
    _refuse(model_differences(config.model, OrbaxCheckpoint(checkpoint).model()), str(checkpoint), advice)


def _refuse(different: Mapping[str, tuple[Any, Any]], where: str, advice: str = "") -> None:
    if different:
        lines = [
            f"config.model.{name} is {ours!r}, there it is {theirs!r}" for name, (ours, theirs) in different.items()
        ]
        raise ConfigError(f"{where} holds another model than the config's{advice}:\n  " + "\n  ".join(lines))
