"""A model ready for use, from a run's checkpoint or from a directory in the public layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import flax.linen as nn
import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh, Sharding
from jax.typing import DTypeLike

from uno_jax.config import ConfigError, from_config_dict
from uno_jax.data.tokenizer import Tokenizer
from uno_jax.data.tokenizer_files import TOKENIZER_FILES
from uno_jax.data.transforms import ImageTransform
from uno_jax.interop.json_object import number, read_object, section
from uno_jax.interop.public import is_public_directory, load_public
from uno_jax.interop.sizes import OUR_SECTION, model_config_from_directory
from uno_jax.models.autoencoder import make_autoencoder
from uno_jax.models.config import ModelConfig
from uno_jax.parallel.mesh import MeshConfig, host_mesh, make_mesh, replicated
from uno_jax.parallel.parameters import tree_shardings
from uno_jax.process.errors import CheckpointError
from uno_jax.training.checkpoints import find_checkpoint, holds_averages, restore_tree, saved_leaves
from uno_jax.training.initialise import abstract_autoencoder, abstract_params
from uno_jax.training.state import Params

T = TypeVar("T")

# What the public implementation uses when it samples (convention 27, and its default timestep shift).
PUBLIC_VAE_TRANSFORM = ImageTransform(1024, 512, 16)
PUBLIC_VIT_TRANSFORM = ImageTransform(980, 224, 14)
PUBLIC_TIME_SHIFT = 3.0


@dataclass(frozen=True)
class LoadedModel:
    """All that sampling needs of a checkpoint."""

    config: ModelConfig
    params: Params
    autoencoder: nn.Module
    autoencoder_params: Params
    """Empty for the pixel autoencoder."""
    tokenizer: Tokenizer
    vae_transform: ImageTransform
    vit_transform: ImageTransform
    time_shift: float
    """That the run trained with; the public implementation's 3.0 where nothing says."""
    origin: str
    """What was loaded, for people and for pictures' metadata: the same however its path was spelt."""


@dataclass(frozen=True)
class SamplingSettings:
    """What sampling needs besides the model, and a checkpoint states or implies."""

    vae_transform: ImageTransform
    vit_transform: ImageTransform
    time_shift: float


def load_model(
    path: str | Path, *, ema: bool = False, dtype: DTypeLike | None = None, mesh: Mesh | None = None
) -> LoadedModel:
    """Loads a model with its autoencoder, tokenizer and transforms.

    Args:
      path: a run's workdir, its checkpoints folder or one checkpoint of it; or a directory in the public layout.
      ema: takes the averages of the trained parameters in place of the parameters themselves (run's checkpoint only).
      dtype: of the parameters; None: as they are stored. The autoencoder is float32 always.
      mesh: where the parameters are placed, as `tree_shardings` says. None: on the first device of this host.

    Raises:
      CheckpointError: nothing is there, there are no averages, tokenizer and vocabulary do not go together, or a file
        is missing or damaged.
      CheckpointMismatch: the tensors of a run's checkpoint are not those of the model that it names.
    """
    mesh = mesh or make_mesh(MeshConfig(), jax.local_devices()[:1])
    checkpoint = find_checkpoint(path)
    if checkpoint is not None:
        return _from_checkpoint(checkpoint, ema, dtype, mesh)
    if is_public_directory(path):
        return _from_public(Path(path), ema, dtype, mesh)
    raise CheckpointError(
        f"{path}: no checkpoint is there; expected a run's workdir, its checkpoints folder or one checkpoint of it, or "
        "a directory in the public layout (ema.safetensors, ae.safetensors, llm_config.json, ...)"
    )


def saved_model_config(checkpoint: Path) -> ModelConfig:
    """The sizes of the model in a run's checkpoint.

    Raises:
      CheckpointError: `assets/model.json` is missing or damaged, or a field is wrong.
    """
    file = checkpoint / "assets" / "model.json"
    return _convert(read_object(file), ModelConfig, f"{file}: model")


def saved_settings(checkpoint: Path) -> SamplingSettings:
    """Those of the run that wrote a checkpoint.

    Raises:
      CheckpointError: `assets/config.json` is missing, or a field is wrong.
    """
    file = checkpoint / "assets" / "config.json"
    config = read_object(file)
    data, objective = (section(config, name, str(file)) for name in ("data", "objective"))
    return SamplingSettings(
        _transform(data, "vae_transform", file) or PUBLIC_VAE_TRANSFORM,
        _transform(data, "vit_transform", file) or PUBLIC_VIT_TRANSFORM,
        number(objective, "time_shift", PUBLIC_TIME_SHIFT, f"{file}, objective", positive=True),
    )


def restore_autoencoder(model: ModelConfig, checkpoint: Path, place: Sharding | None = None) -> Params:
    """The autoencoder's parameters in a checkpoint, float32; empty for an autoencoder that has none.

    `place` is where each of them lies; None: on every device of this host.

    Raises:
      CheckpointError: they are not there, or not the model's.
    """
    shapes = abstract_autoencoder(model)
    if not shapes:
        return {}
    place = place or replicated(host_mesh())
    target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes)
    return restore_tree(checkpoint / "autoencoder", target)


def _from_checkpoint(checkpoint: Path, ema: bool, dtype: DTypeLike | None, mesh: Mesh) -> LoadedModel:
    model = saved_model_config(checkpoint)
    settings = saved_settings(checkpoint)
    tokenizer = read_tokenizer(checkpoint / "assets", model)
    shapes = flatten_dict(abstract_params(model), sep="/")
    shardings = flatten_dict(tree_shardings(abstract_params(model), mesh), sep="/")

    def restore(item: str, leaves: Mapping[str, Any], ignored: tuple[str, ...] = ()) -> dict[str, Any]:
        stored = saved_leaves(checkpoint / item)
        target = {
            name: jax.ShapeDtypeStruct(
                leaf.shape,
                np.dtype(dtype) if dtype is not None or name not in stored else stored[name].dtype,
                sharding=shardings[name],
            )
            for name, leaf in leaves.items()
        }
        tree = restore_tree(checkpoint / item, unflatten_dict(target, sep="/"), ignored)
        return flatten_dict(tree, sep="/")

    averages: dict[str, Any] = {}
    if ema:
        if not holds_averages(checkpoint):
            raise CheckpointError(
                f"{checkpoint}: it holds no averages of the parameters (ema), for the run kept none "
                "(config.optimizer.ema_decay); load the parameters themselves"
            )
        averages = restore("ema", {name: shapes[name] for name in saved_leaves(checkpoint / "ema") if name in shapes})
    rest = {name: leaf for name, leaf in shapes.items() if name not in averages}
    params = restore("params", rest, ignored=tuple(averages)) | averages
    return LoadedModel(
        config=model,
        params=unflatten_dict(params, sep="/"),
        autoencoder=make_autoencoder(model.autoencoder),
        autoencoder_params=restore_autoencoder(model, checkpoint, replicated(mesh)),
        tokenizer=tokenizer,
        vae_transform=settings.vae_transform,
        vit_transform=settings.vit_transform,
        time_shift=settings.time_shift,
        origin=f"{checkpoint}{', averaged parameters' if ema else ''}",
    )


def _from_public(directory: Path, ema: bool, dtype: DTypeLike | None, mesh: Mesh) -> LoadedModel:
    if ema:
        raise CheckpointError(
            f"{directory}: a directory in the public layout holds one set of parameters, and no averages (ema) beside "
            "them; load it as it is"
        )
    model = model_config_from_directory(directory)
    tokenizer = read_tokenizer(directory, model, public=True)
    shardings = flatten_dict(tree_shardings(abstract_params(model), mesh))

    loaded = load_public(
        directory,
        lambda path: np.float32 if path[0] == "autoencoder" else dtype,
        lambda path: shardings.get(path, replicated(mesh)),
    )
    settings = public_settings(directory, model)
    return LoadedModel(
        config=loaded.config,
        params=loaded.params,
        autoencoder=make_autoencoder(model.autoencoder),
        autoencoder_params=loaded.autoencoder_params,
        tokenizer=tokenizer,
        vae_transform=settings.vae_transform,
        vit_transform=settings.vit_transform,
        time_shift=settings.time_shift,
        origin=str(directory.resolve()),
    )


def public_settings(directory: Path, model: ModelConfig) -> SamplingSettings:
    """Those that `config.json` of a public-layout directory states in our section; else the public ones.

    Raises:
      CheckpointError: a field that is wrong.
    """
    file = directory / "config.json"
    ours = section(read_object(file), OUR_SECTION, str(file)) if file.is_file() else {}
    return SamplingSettings(
        _transform(ours, "vae_transform", file)
        or _fitting(PUBLIC_VAE_TRANSFORM, model.max_latent_size, model.pixels_per_token),
        _transform(ours, "vit_transform", file)
        or _fitting(PUBLIC_VIT_TRANSFORM, model.vision.table_side, model.vision.patch_size),
        number(ours, "time_shift", PUBLIC_TIME_SHIFT, f"{file}, {OUR_SECTION}", positive=True),
    )


def _fitting(transform: ImageTransform, table_side: int, patch: int) -> ImageTransform:
    """The transform for a model whose patches or position table are smaller than the published one's."""
    largest = min(transform.max_side, table_side * patch)
    least = max(patch, transform.min_side * largest // transform.max_side)
    return ImageTransform(largest, least, patch, transform.max_pixels)


def _transform(fields: Mapping[str, Any], name: str, file: Path) -> ImageTransform | None:
    """The transform that a JSON object states; None where it states none."""
    return _convert(fields[name], ImageTransform, f"{file}: {name}") if name in fields else None


def read_tokenizer(directory: Path, model: ModelConfig, *, public: bool = False) -> Tokenizer:
    """The tokenizer in a directory.

    `public`: the directory is in the public layout, or will be; there the ids of all delimiters must be listed, for
    those that are added would follow the last listed one, and need not be the ids that the model was trained with.

    Raises:
      CheckpointError: a file is missing or damaged, or it has more ids than the model's vocabulary.
    """
    try:
        tokenizer = Tokenizer.from_directory(directory)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{directory}: its tokenizer cannot be read: {error}") from error
    if len(tokenizer) > model.decoder.vocab_size:
        raise CheckpointError(
            f"{directory}: its tokenizer has {len(tokenizer)} ids, and the model's vocabulary is "
            f"{model.decoder.vocab_size}: {', '.join(TOKENIZER_FILES)} are those of another model"
        )
    if public and tokenizer.unlisted:
        raise CheckpointError(
            f"{directory / 'tokenizer_config.json'}: added_tokens_decoder lists no "
            f"{' and no '.join(tokenizer.unlisted)}; take the file that belongs to the model, or add the tokens with "
            "their ids"
        )
    return tokenizer


def _convert(value: Any, kind: type[T], where: str) -> T:
    try:
        return from_config_dict(value, kind, where)
    except ConfigError as error:
        raise CheckpointError(str(error)) from error
