"""Where a model comes from: a checkpoint of ours, or a directory in the public layout, with the same methods."""

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
from uno_jax.process.errors import CheckpointError
from uno_jax.training.checkpoints import find_checkpoint, has_ema, restore_tree, saved_leaves
from uno_jax.training.initialise import abstract_autoencoder, abstract_params
from uno_jax.training.state import Params, is_under


@dataclass(frozen=True)
class Source(ABC):
    """A model on disk; `find_source` makes one. All methods raise CheckpointError for what is missing or damaged."""

    path: Path
    """One checkpoint of ours, or the directory in the public layout."""

    @property
    def origin(self) -> str:
        """What people read: the same however the path was written."""
        return str(self.path.resolve())

    @property
    @abstractmethod
    def tokenizer_directory(self) -> Path:
        """The folder of the tokenizer's files."""

    @abstractmethod
    def model(self) -> ModelConfig:
        """The model's sizes."""

    @abstractmethod
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, which fits the model's vocabulary."""

    @abstractmethod
    def settings(self) -> SamplingSettings:
        """Transforms and time shift for sampling."""

    @abstractmethod
    def provenance(self) -> Provenance:
        """What is known of an import, and of training since."""

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
          mesh: where the model's parameters are placed, as `tree_shardings` says.
          autoencoder: where each parameter of the autoencoder is placed.
          dtype: for the path of a leaf, its dtype, or None to keep the stored one.
          ema: takes the averages of the trained parameters in place of the parameters themselves.
          ignored: path prefixes of parameters that are not read.

        Raises:
          CheckpointMismatch: the tensors of a checkpoint are not those of the model that it names.
        """

    @abstractmethod
    def contents(self, *, ema: bool = False) -> Contents:
        """Opens it for reading leaf by leaf; `ema` as for `parameters`."""


def find_source(path: str | Path) -> Source:
    """The model that a path names.

    Args:
      path: a run's workdir, its checkpoints folder, or one checkpoint (also one that `convert import` made); or a
        directory in the public layout.

    Raises:
      CheckpointError: none of these is there.
    """
    checkpoint = find_checkpoint(path)
    if checkpoint is not None:
        return OrbaxCheckpoint(checkpoint)
    if is_public_directory(path):
        return PublicDirectory(Path(path))
    raise CheckpointError(
        f"{path}: no checkpoint is there; expected a run's workdir, its checkpoints folder or one checkpoint of it, or "
        "a directory in the public layout (ema.safetensors, ae.safetensors, llm_config.json, ...)"
    )


@dataclass(frozen=True)
class OrbaxCheckpoint(Source):
    """One checkpoint of a run, or of a model alone."""

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
        wanted = {name: leaf for name, leaf in shapes.items() if not _is_under_any(name, ignored)}
        averages: dict[str, Any] = {}
        if ema:
            self._check_averages()
            saved = saved_leaves(self.path / "ema")
            averages = self._restore("ema", {name: wanted[name] for name in saved if name in wanted}, dtype)
        rest = {name: leaf for name, leaf in wanted.items() if name not in averages}
        params = self._restore("params", rest, dtype, (*ignored, *averages)) | averages
        return Parameters(unflatten_dict(params, sep="/"), self.autoencoder_params(autoencoder))

    def autoencoder_params(self, place: Sharding) -> Params:
        """The autoencoder's parameters, float32, each placed on `place`; empty for an autoencoder without any.

        Raises:
          CheckpointMismatch, CheckpointError: they are missing, damaged, or not those of the model.
        """
        shapes = abstract_autoencoder(self.model())
        if not shapes:
            return {}
        target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes)
        params: Params = restore_tree(self.path / "autoencoder", target)
        return params

    def contents(self, *, ema: bool = False) -> Contents:
        if ema:
            self._check_averages()
        return saved_contents(self.path, ema=ema)

    def _restore(
        self, item: str, leaves: Mapping[str, jax.ShapeDtypeStruct], dtype: DtypePolicy, ignored: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Leaves of one item by their paths with slashes; `ignored` are path prefixes of the others that it holds."""
        stored = saved_leaves(self.path / item)
        target = {}
        for name, leaf in leaves.items():
            wanted = dtype(tuple(name.split("/")))
            kept = wanted if wanted is not None else stored.get(name, leaf).dtype
            target[name] = jax.ShapeDtypeStruct(leaf.shape, np.dtype(kept), sharding=leaf.sharding)
        tree = restore_tree(self.path / item, unflatten_dict(target, sep="/"), ignored)
        restored: dict[str, Any] = flatten_dict(tree, sep="/")
        return restored

    def _check_averages(self) -> None:
        if not has_ema(self.path):
            raise CheckpointError(
                f"{self.path}: it holds no averages of the parameters (ema), for the run kept none "
                "(config.optimizer.ema_decay); load the parameters themselves"
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
        return read_tokenizer(self.path, self.model(), listed=True)

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
            wanted=lambda path: not _is_under_any("/".join(path), ignored),
        )

    def contents(self, *, ema: bool = False) -> Contents:
        self._check_parameters(ema)
        return public_contents(open_public(self.path))

    def _check_parameters(self, ema: bool) -> None:
        if ema:
            raise CheckpointError(
                f"{self.path}: a directory in the public layout holds one set of parameters, and no averages (ema) "
                "beside them; load it as it is"
            )


def read_tokenizer(directory: Path, model: ModelConfig, *, listed: bool = False) -> Tokenizer:
    """The tokenizer in a directory.

    Args:
      directory: the folder of its files.
      model: the model that it is for.
      listed: demands the ids of all delimiters in the files, as the public layout does. Delimiters that are not listed
        are added after the last id, which need not be the one that the model was trained with.

    Raises:
      CheckpointError: a file is missing or damaged, lists too few delimiters, or has more ids than the vocabulary.
    """
    try:
        tokenizer = Tokenizer.from_directory(directory)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{directory}: its tokenizer cannot be read: {error}") from error
    if len(tokenizer) > model.decoder.vocab_size:
        raise CheckpointError(
            f"{directory}: its tokenizer has {len(tokenizer)} ids, and the model's vocabulary is "
            f"{model.decoder.vocab_size} (model.decoder.vocab_size); take the {', '.join(TOKENIZER_FILES)} of this "
            "model, or, if it is a new one, give it a larger vocabulary"
        )
    if listed and tokenizer.unlisted:
        raise CheckpointError(
            f"{directory / 'tokenizer_config.json'}: added_tokens_decoder lists no "
            f"{' and no '.join(tokenizer.unlisted)}; take the file that belongs to the model, or add the tokens with "
            "their ids"
        )
    return tokenizer


def _is_under_any(name: str, prefixes: Sequence[str]) -> bool:
    return any(is_under(name, prefix) for prefix in prefixes)
