"""Finds a model on disk, and reads Orbax checkpoints and the public layout through the same methods."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh, Sharding

from uno_jax.config import ConfigError, from_config_dict
from uno_jax.data.tokenizer import Tokenizer
from uno_jax.data.tokenizer_files import TOKENIZER_FILES
from uno_jax.interop.contents import Contents, public_contents, saved_contents
from uno_jax.interop.json_object import read_object
from uno_jax.interop.names import LeafPath
from uno_jax.interop.provenance import Provenance, public_provenance, saved_provenance
from uno_jax.interop.public_files import DtypePolicy, Parameters, is_public_directory, open_public, place_public
from uno_jax.interop.sampling_settings import SamplingSettings, public_settings, saved_settings
from uno_jax.interop.sizes import model_config_from_directory
from uno_jax.models.config import ModelConfig
from uno_jax.parallel.parameters import tree_shardings, with_shardings
from uno_jax.process.errors import CheckpointError, say
from uno_jax.training.checkpoint_folders import (
    check_files,
    find_checkpoint,
    has_ema,
)
from uno_jax.training.initialise import abstract_autoencoder, abstract_params
from uno_jax.training.state import Params, is_under_any
from uno_jax.training.stored_trees import restore_tree, saved_leaves


@dataclass(frozen=True)
class Source(ABC):
    """A model on disk, found by `find_source`. All methods raise CheckpointError for a missing or damaged file."""

    path: Path
    """Directory of one Orbax checkpoint, or of the public layout."""

    @property
    def origin(self) -> str:
        """Resolved path, for messages and metadata."""
        return str(self.path.resolve())

    @property
    @abstractmethod
    def tokenizer_directory(self) -> Path:
        """Folder of the tokenizer files."""

    @abstractmethod
    def model(self) -> ModelConfig:
        """Returns the sizes of the model."""

    @abstractmethod
    def tokenizer(self) -> Tokenizer:
        """Returns the tokenizer, which fits the vocabulary of the model."""

    @abstractmethod
    def settings(self) -> SamplingSettings:
        """Returns the transforms and time shift for sampling."""

    @abstractmethod
    def provenance(self) -> Provenance:
        """Returns the origin of the parameters: an import, and the parameters trained since."""

    @abstractmethod
    def parameters(
        self,
        mesh: Mesh,
        autoencoder: Sharding,
        dtype: DtypePolicy,
        *,
        ema: bool = False,
        ignored: Sequence[str] = (),
    ) -> Parameters:
        """Reads the parameters onto devices.

        Args:
          mesh: mesh on which the parameters of the model are sharded (see `tree_shardings`).
          autoencoder: sharding of each parameter of the autoencoder.
          dtype: path of a leaf -> its dtype, or None to keep the stored one.
          ema: reads the EMA of the trained parameters instead of the parameters.
          ignored: path prefixes of parameters to skip.

        Raises:
          CheckpointMismatch: the tensors of a checkpoint do not match its `model.json`.
        """

    @abstractmethod
    def autoencoder_params(self, place: Sharding) -> Params:
        """Reads the autoencoder's float32 parameters alone with sharding `place`; empty for the pixel autoencoder.

        Raises:
          CheckpointMismatch: they do not match `model.json`.
        """

    @abstractmethod
    def contents(self, *, ema: bool = False) -> Contents:
        """Opens the checkpoint for reading leaf by leaf; `ema` as for `parameters`."""


def find_source(path: str | Path) -> Source:
    """Finds the model at a path.

    Args:
      path: workdir of a run, its checkpoints folder, one checkpoint (of a run or of `convert import`), or a directory
        in the public layout.

    Raises:
      CheckpointError: there is no checkpoint, or its small files are missing or damaged.
    """
    checkpoint = find_checkpoint(path)
    if checkpoint is not None:
        if not check_files(checkpoint):
            say(f"{checkpoint} has no checksums, because an earlier version wrote it, so its arrays are not checked.")
        return OrbaxCheckpoint(checkpoint)
    if is_public_directory(path):
        return PublicDirectory(Path(path))
    raise CheckpointError(
        f"{path}: no checkpoint found; expected a run's workdir, its checkpoints folder, one checkpoint, or a "
        "directory in the public layout (ema.safetensors, ae.safetensors, llm_config.json, ...)"
    )


@dataclass(frozen=True)
class OrbaxCheckpoint(Source):
    """An Orbax checkpoint of a run, or of a model without training state."""

    @property
    def tokenizer_directory(self) -> Path:
        return self.path / "assets"

    def model(self) -> ModelConfig:
        file = self.path / "assets" / "model.json"
        try:
            return from_config_dict(read_object(file), ModelConfig, f"{file}: model")
        except ConfigError as error:
            raise CheckpointError(str(error)) from error

    def tokenizer(self) -> Tokenizer:
        return read_tokenizer(self.tokenizer_directory, self.model())

    def settings(self) -> SamplingSettings:
        return saved_settings(self.path / "assets" / "config.json")

    def provenance(self) -> Provenance:
        return saved_provenance(self.path)

    def parameters(
        self,
        mesh: Mesh,
        autoencoder: Sharding,
        dtype: DtypePolicy,
        *,
        ema: bool = False,
        ignored: Sequence[str] = (),
    ) -> Parameters:
        shapes = flatten_dict(with_shardings(abstract_params(self.model()), mesh), sep="/")
        wanted = {name: leaf for name, leaf in shapes.items() if not is_under_any(name, ignored)}
        averaged: dict[str, Any] = {}
        if ema:
            self._check_ema()
            saved = saved_leaves(self.path / "ema")
            averaged = self._restore("ema", {name: wanted[name] for name in saved if name in wanted}, dtype)
        rest = {name: leaf for name, leaf in wanted.items() if name not in averaged}
        params = self._restore("params", rest, dtype, (*ignored, *averaged)) | averaged
        return Parameters(unflatten_dict(params, sep="/"), self.autoencoder_params(autoencoder))

    def autoencoder_params(self, place: Sharding) -> Params:
        shapes = abstract_autoencoder(self.model())
        if not shapes:
            return {}
        target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes)
        params: Params = restore_tree(self.path / "autoencoder", target)
        return params

    def contents(self, *, ema: bool = False) -> Contents:
        if ema:
            self._check_ema()
        return saved_contents(self.path, ema=ema)

    def _restore(
        self, item: str, leaves: Mapping[str, jax.ShapeDtypeStruct], dtype: DtypePolicy, ignored: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Restores leaves of one item by path. `ignored` are the path prefixes of its other leaves."""
        stored = saved_leaves(self.path / item)
        target = {}
        for name, leaf in leaves.items():
            wanted = dtype(tuple(name.split("/")))
            kept = wanted if wanted is not None else stored.get(name, leaf).dtype
            target[name] = jax.ShapeDtypeStruct(leaf.shape, np.dtype(kept), sharding=leaf.sharding)
        tree = restore_tree(self.path / item, unflatten_dict(target, sep="/"), ignored)
        restored: dict[str, Any] = flatten_dict(tree, sep="/")
        return restored

    def _check_ema(self) -> None:
        if not has_ema(self.path):
            raise CheckpointError(
                f"{self.path}: the checkpoint has no EMA weights, because the run kept none "
                "(config.optimizer.ema_decay); use the trained parameters instead"
            )


@dataclass(frozen=True)
class PublicDirectory(Source):
    """A directory in the public layout."""

    @property
    def tokenizer_directory(self) -> Path:
        return self.path

    def model(self) -> ModelConfig:
        return model_config_from_directory(self.path)

    def tokenizer(self) -> Tokenizer:
        return read_tokenizer(self.path, self.model())

    def settings(self) -> SamplingSettings:
        return public_settings(self.path / "config.json", self.model())

    def provenance(self) -> Provenance:
        return public_provenance(open_public(self.path))

    def parameters(
        self,
        mesh: Mesh,
        autoencoder: Sharding,
        dtype: DtypePolicy,
        *,
        ema: bool = False,
        ignored: Sequence[str] = (),
    ) -> Parameters:
        self._check_parameters(ema)
        public = open_public(self.path)
        shardings = flatten_dict(tree_shardings(abstract_params(public.config), mesh))

        def dtype_of(path: LeafPath) -> Any:
            return np.float32 if path[0] == "autoencoder" else dtype(path)

        return place_public(
            public,
            lambda path: shardings.get(path, autoencoder),
            dtype_of,
            wanted=lambda path: not is_under_any("/".join(path), ignored),
        )

    def autoencoder_params(self, place: Sharding) -> Params:
        placed = place_public(
            open_public(self.path),
            lambda path: place,
            lambda path: np.float32,
            wanted=lambda path: path[0] == "autoencoder",
        )
        return placed.autoencoder_params

    def contents(self, *, ema: bool = False) -> Contents:
        self._check_parameters(ema)
        return public_contents(open_public(self.path))

    def _check_parameters(self, ema: bool) -> None:
        if ema:
            raise CheckpointError(
                f"{self.path}: a directory in the public layout holds one set of parameters and no separate EMA "
                "weights; omit the EMA option"
            )


def read_tokenizer(directory: Path, model: ModelConfig) -> Tokenizer:
    """Reads the tokenizer in a directory. Delimiters that its files do not list get the next free ids.

    Raises:
      CheckpointError: a file is missing or damaged, or there are more ids than the vocabulary of the model.
    """
    try:
        tokenizer = Tokenizer.from_directory(directory)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{directory}: cannot read the tokenizer: {error}") from error
    if len(tokenizer) > model.decoder.vocab_size:
        raise CheckpointError(
            f"{directory}: the tokenizer has {len(tokenizer)} ids, but the vocabulary of the model is "
            f"{model.decoder.vocab_size} (model.decoder.vocab_size); use the {', '.join(TOKENIZER_FILES)} of this "
            "model, or, for a new model, increase the vocabulary"
        )
    return tokenizer
