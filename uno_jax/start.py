"""Where a run's parameters come from: drawn afresh, another run's checkpoint, or a public-layout directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from jax.sharding import Mesh

from uno_jax.config import ConfigError, to_json
from uno_jax.interop.load import first_device, is_public_directory, load_public, open_public
from uno_jax.interop.provenance import Provenance, public_provenance, saved_provenance
from uno_jax.interop.sizes import model_config_from_directory
from uno_jax.load import restore_autoencoder, saved_model_config
from uno_jax.models.config import ModelConfig
from uno_jax.parallel.mesh import tree_shardings, with_shardings
from uno_jax.run_config import RunConfig
from uno_jax.training.checkpoints import find_checkpoint, restore_tree
from uno_jax.training.initialise import abstract_params, cast_params, init_autoencoder, init_params, leaf_dtype
from uno_jax.training.state import Params

# Fields of ModelConfig that change speed or precision and not what the parameters are; and UNO's additions, which a
# checkpoint of another method need not have.
_FREE_FIELDS = (
    "decoder.scan_unroll",
    "decoder.remat",
    "vision.scan_unroll",
    "vision.remat",
    "compute_dtype",
    "num_metaqueries",
    "metaquery_target",
)


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
        params = _place(config, init_params(config.model, config.seed), mesh)
        return Start(params, init_autoencoder(config.model, config.seed), "drawn afresh")
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
    target = abstract_run_params(config, mesh)
    same_queries = _same_metaqueries(config.model, saved)
    wanted = target if same_queries else {name: part for name, part in target.items() if name != "metaqueries"}
    params = restore_tree(checkpoint / "params", wanted, ignored=() if same_queries else ("metaqueries",))
    autoencoder = restore_autoencoder(config.model, checkpoint)
    return Start(_with_metaqueries(config, params, mesh), autoencoder, str(checkpoint))


def _from_public(config: RunConfig, directory: Path, mesh: Mesh) -> Start:
    saved = model_config_from_directory(directory)
    _compare_models(config.model, saved, str(directory))
    shardings = flatten_dict(tree_shardings(abstract_params(saved), mesh))

    def dtype(path: tuple[str, ...]) -> Any:
        if path[0] == "autoencoder":
            return np.float32
        return leaf_dtype(path, config.trainable, config.trainable_dtype, config.frozen_dtype)

    loaded = load_public(directory, dtype, lambda path: shardings.get(path) or first_device(path))
    params = loaded.params
    if not _same_metaqueries(config.model, saved):
        params = {name: part for name, part in params.items() if name != "metaqueries"}
    return Start(_with_metaqueries(config, params, mesh), loaded.autoencoder_params, str(directory))


def _same_metaqueries(wanted: ModelConfig, saved: ModelConfig) -> bool:
    return (wanted.num_metaqueries, wanted.metaquery_target) == (saved.num_metaqueries, saved.metaquery_target)


def _with_metaqueries(config: RunConfig, params: Params, mesh: Mesh) -> Params:
    """The parameters, with metaqueries drawn afresh where the model has them and the source does not."""
    if "metaqueries" in params or not config.model.num_metaqueries:
        return params
    fresh = init_params(config.model, config.seed, ("metaqueries",))
    return {**params, **_place(config, fresh, mesh)}


def abstract_run_params(config: RunConfig, mesh: Mesh) -> Params:
    """Shapes, dtypes and places of the run's parameters."""
    return with_shardings(_cast(config, abstract_params(config.model)), mesh)


def _place(config: RunConfig, params: Params, mesh: Mesh) -> Params:
    params = _cast(config, params)
    return jax.device_put(params, tree_shardings(params, mesh))


def _cast(config: RunConfig, params: Params) -> Params:
    return cast_params(params, config.trainable, config.trainable_dtype, config.frozen_dtype)


def _compare_models(wanted: ModelConfig, saved: ModelConfig, where: str) -> None:
    """Demands that the models are the same but for the free fields."""
    ours, theirs = _flat(wanted), _flat(saved)
    different = [name for name in ours if ours[name] != theirs[name] and name not in _FREE_FIELDS]
    if different:
        lines = [f"config.model.{name} is {ours[name]!r}, there it is {theirs[name]!r}" for name in different]
        raise ConfigError(f"config.init_from: {where} holds another model than the config's:\n  " + "\n  ".join(lines))


def _flat(model: ModelConfig) -> dict[str, Any]:
    flat = flatten_dict(to_json(model), sep=".")
    if model.autoencoder.kind == "pixel":
        # Sizes of the FLUX autoencoder mean nothing for the pixel autoencoder.
        for name in ("base_channels", "channel_multipliers", "num_residual_blocks"):
            del flat[f"autoencoder.{name}"]
    return flat
