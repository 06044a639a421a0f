"""Where a run's parameters come from: drawn afresh, another run's checkpoint, or a public-layout directory."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from jax.sharding import Mesh

from uno_jax.config import ConfigError
from uno_jax.interop.load import read_tokenizer, restore_autoencoder, saved_model_config
from uno_jax.interop.provenance import Provenance, public_provenance, saved_provenance
from uno_jax.interop.public import is_public_directory, load_public, open_public
from uno_jax.interop.sizes import model_config_from_directory
from uno_jax.models.adapters import ADAPTERS
from uno_jax.models.config import ModelConfig, model_differences
from uno_jax.parallel.mesh import host_mesh, replicated
from uno_jax.parallel.parameters import tree_shardings, with_shardings
from uno_jax.run.config import RunConfig
from uno_jax.training.checkpoints import find_checkpoint, restore_tree
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


def start_params(config: RunConfig, mesh: Mesh) -> Start:
    """The parameters that `config.init_from` means, in the dtypes and places of the run.

    Raises:
      ConfigError: there is nothing at `init_from`, or it is of another model than `config.model`.
      CheckpointMismatch, CheckpointError: its tensors are not those that its own files announce.
    """
    if not config.init_from:
        autoencoder = jax.device_put(init_autoencoder(config.model, config.seed), replicated(host_mesh()))
        return Start(_drawn(config, (), mesh), autoencoder, "drawn afresh")
    checkpoint = _find_start(config)
    if checkpoint is not None:
        return _from_checkpoint(config, checkpoint, mesh)
    return _from_public(config, Path(config.init_from), mesh)


def tokenizer_directory(config: RunConfig, resumed: Path | None = None) -> Path:
    """Where the tokenizer of a run is, which goes on from the checkpoint `resumed` if there is one.

    The embeddings mean nothing under another tokenizer than their own, so it comes with the parameters; that of the
    dataset is for parameters that are drawn afresh. `config.data.tokenizer` is stronger than both.

    Raises:
      ConfigError: there is nothing at `init_from`.
    """
    if config.data.tokenizer:
        return Path(config.data.tokenizer)
    if resumed is None and not config.init_from:
        return Path(config.data.directory) / "tokenizer"
    checkpoint = resumed or _find_start(config)
    return Path(config.init_from) if checkpoint is None else checkpoint / "assets"


def _find_start(config: RunConfig) -> Path | None:
    """The checkpoint at `init_from`; None for a directory in the public layout."""
    checkpoint = find_checkpoint(config.init_from)
    if checkpoint is None and not is_public_directory(config.init_from):
        raise ConfigError(
            f"config.init_from is {config.init_from!r}: no checkpoint of a run is there, and no directory in the "
            "public layout (ema.safetensors, ae.safetensors, llm_config.json, ...)"
        )
    return checkpoint


def run_provenance(config: RunConfig, resumed: Path | None = None) -> Provenance:
    """What the run's checkpoints are to remember of where its parameters come from; `resumed` as above.

    Raises:
      ConfigError: there is nothing at `init_from`.
      CheckpointError: as `open_public` and `saved_provenance`.
    """
    if resumed is None and not config.init_from:
        return Provenance(trained=config.trainable)
    checkpoint = resumed or _find_start(config)
    start = public_provenance(open_public(config.init_from)) if checkpoint is None else saved_provenance(checkpoint)
    return start.with_trained(config.trainable)


def _from_checkpoint(config: RunConfig, checkpoint: Path, mesh: Mesh) -> Start:
    saved = saved_model_config(checkpoint)
    _compare_models(config.model, saved, str(checkpoint))
    fresh = _fresh_parts(config.model, saved)
    kept = partition(abstract_run_params(config, mesh), fresh)[1]
    params = restore_tree(checkpoint / "params", kept, ignored=fresh)
    autoencoder = restore_autoencoder(config.model, checkpoint)
    return Start(_with_fresh(config, params, fresh, mesh), autoencoder, str(checkpoint))


def _from_public(config: RunConfig, directory: Path, mesh: Mesh) -> Start:
    saved = model_config_from_directory(directory)
    _compare_models(config.model, saved, str(directory))
    if not config.data.tokenizer:
        read_tokenizer(directory, saved, public=True)
    shardings = flatten_dict(tree_shardings(abstract_params(saved), mesh))

    def dtype(path: tuple[str, ...]) -> Any:
        if path[0] == "autoencoder":
            return np.float32
        return leaf_dtype(path, config.trainable, config.trainable_dtype, config.frozen_dtype)

    everywhere = replicated(host_mesh())  # the autoencoder, with which each host encodes its own pictures
    loaded = load_public(directory, dtype, lambda path: shardings.get(path, everywhere))
    fresh = _fresh_parts(config.model, saved)
    kept = partition(loaded.params, fresh)[1]
    return Start(_with_fresh(config, kept, fresh, mesh), loaded.autoencoder_params, str(directory))


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
      CheckpointError: as `saved_model_config`.
    """
    advice = "; to go on from it take its model (config.json in its assets folder), or else give another workdir"
    _refuse(model_differences(config.model, saved_model_config(checkpoint)), str(checkpoint), advice)


def _refuse(different: Mapping[str, tuple[Any, Any]], where: str, advice: str = "") -> None:
    if different:
        lines = [
            f"config.model.{name} is {ours!r}, there it is {theirs!r}" for name, (ours, theirs) in different.items()
        ]
        raise ConfigError(f"{where} holds another model than the config's{advice}:\n  " + "\n  ".join(lines))
