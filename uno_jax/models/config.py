"""Sizes of the model. The defaults are those of the published BAGEL-7B-MoT."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from flax.traverse_util import flatten_dict

from uno_jax.attention.attend import Attention
from uno_jax.batch import Layout
from uno_jax.config import Dtype, to_json

Remat = Literal["none", "dots", "save_projections", "save_attention", "full", "offload"]
"""Rematerialisation policies, from no recomputation to the least device memory (`DecoderConfig.remat`)."""
MetaqueryTarget = Literal["vision", "connector"]
Prediction = Literal["velocity", "x0"]
AutoencoderKind = Literal["flux", "transformer", "pixel"]


@dataclass(frozen=True)
class DecoderConfig:
    """The two-expert decoder. `scan_unroll`, `remat` and `attention` change speed and memory, but not checkpoints."""

    hidden_size: int = 3584
    num_layers: int = 28
    num_heads: int = 28
    num_kv_heads: int = 4
    head_dim: int = 128
    mlp_size: int = 18944
    vocab_size: int = 152064
    rope_theta: float = 1e6
    norm_eps: float = 1e-6
    context_length: int = 32768
    """Maximum number of positions of a context and the text written after it. A picture takes one. Sampling refuses
    longer contexts."""
    scan_unroll: int = 1
    """Layers per iteration of the layer scan; num_layers unrolls it completely.

    The decoder then keeps the parameters of each layer apart in memory, so that no program copies slices of stacked
    ones (`models/apart.py`).
    """
    remat: Remat = "none"
    """Rematerialisation: what the backward pass recomputes in each layer.

    `none` recomputes nothing. The other policies recompute everything except what they save: `offload` the layer's
    input, in host memory; `full` the layer's input; `save_attention` also the output of the attention kernel or of
    cuDNN (dense attention is recomputed); `save_projections` also queries, keys, values and the residual sum after
    attention, so that mainly the MLP is recomputed; `dots` all matrix products.
    """
    attention: Attention = "auto"
    """`kernel` (Pallas, for TPUs), `flash` (cuDNN, for GPUs), `dense` (all scores in memory), or `auto`: kernel on a
    TPU, flash on a GPU in bfloat16 or float16, otherwise dense."""
    adapter_rank: int = 0
    """Rank of the low-rank adapters on every linear layer of the generation expert; 0: no adapters."""
    adapter_scale: float = 2.0
    """Scale of the adapter output (alpha / rank)."""


@dataclass(frozen=True)
class VisionConfig:
    """The SigLIP vision encoder, over packed patches."""

    hidden_size: int = 1152
    num_layers: int = 26
    num_heads: int = 16
    mlp_size: int = 4304
    patch_size: int = 14
    table_side: int = 70
    """Side of the learned position table, and of the fixed table after the connector."""
    norm_eps: float = 1e-6
    scan_unroll: int = 1
    remat: Remat = "none"
    attention: Attention = "auto"
    """`scan_unroll`, `remat` and `attention` are as in `DecoderConfig`."""


@dataclass(frozen=True)
class AutoencoderConfig:
    """The autoencoder between images and latents.

    `flux` is the published one. Two are for small models: `transformer`, which `uno_jax.pretrain_vision` trains, and
    `pixel`, a space-to-depth without parameters.
    """

    kind: AutoencoderKind = "flux"
    base_channels: int = 128
    channel_multipliers: tuple[int, ...] = (1, 2, 4, 4)
    num_residual_blocks: int = 2
    latent_channels: int = 16
    """Must be 3 * downsample ** 2 for the pixel autoencoder."""
    downsample: int = 8
    """Pixels per latent along each side. Must be 2 ** (len(channel_multipliers) - 1) for the FLUX autoencoder."""
    scale: float = 0.3611
    shift: float = 0.1159
    transformer: VisionConfig = field(default_factory=VisionConfig)
    """Sizes of each half of the transformer autoencoder. `patch_size` must be `downsample`."""
    attention: Attention = "auto"
    """Like `DecoderConfig.attention`."""


@dataclass(frozen=True)
class ModelConfig:
    """The unified model and UNO's additions."""

    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    vision: VisionConfig = field(default_factory=VisionConfig)
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    latent_patch_size: int = 2
    max_latent_size: int = 64
    """Side of the fixed latent position table, in latent tokens."""
    num_metaqueries: int = 256
    """Rows of the metaquery table: the maximum number of patches of `metaquery_transform`. 0: no metaqueries."""
    metaquery_target: MetaqueryTarget = "vision"
    """Prediction target of the metaqueries: the output of the ViT (`vision`) or of the connector (`connector`)."""
    align_layer: int = 0
    """Decoder layer, from 1, after which the states of the generation expert enter the head of the align loss, usually
    about the middle; 0: no such head."""
    prediction: Prediction = "velocity"
    """Parametrisation of the output projection: `velocity` or `x0`. The loss is on the velocity in both cases."""
    compute_dtype: Dtype = "float32"
    """Dtype of matrix products. Norms, RoPE, softmax and losses are always float32."""

    @property
    def latent_size(self) -> int:
        """Width of one latent token: a patch of latents, flattened (row, column, channel)."""
        return self.latent_patch_size**2 * self.autoencoder.latent_channels

    @property
    def pixels_per_token(self) -> int:
        """Side, in pixels, of the square under one latent token."""
        return self.latent_patch_size * self.autoencoder.downsample


# Fields that change speed, memory, precision or what is refused, but not the parameters or their meaning.
_FREE_FIELDS = (
    "decoder.context_length",
    "decoder.scan_unroll",
    "decoder.remat",
    "decoder.attention",
    "vision.scan_unroll",
    "vision.remat",
    "vision.attention",
    "autoencoder.transformer.scan_unroll",
    "autoencoder.transformer.remat",
    "autoencoder.transformer.attention",
    "autoencoder.attention",
    "compute_dtype",
)


def model_differences(first: ModelConfig, second: ModelConfig) -> dict[str, tuple[Any, Any]]:
    """Fields that differ between two models: dotted path -> both values (as JSON).

    Skips fields that only change speed, memory or precision, and fields that neither model uses.
    """
    ours, theirs = (flatten_dict(to_json(model), sep=".") for model in (first, second))
    free = set(_FREE_FIELDS) | (_idle_fields(first) & _idle_fields(second))
    return {name: (ours[name], theirs[name]) for name in ours if ours[name] != theirs[name] and name not in free}


def autoencoder_fields(model: ModelConfig) -> dict[str, Any]:
    """Returns the fields that determine the moments of a picture, besides the parameters: dotted path -> JSON value."""
    fields = flatten_dict(to_json(model.autoencoder), sep=".")
    free = set(_FREE_FIELDS) | _idle_fields(model)
    used = {name: value for name, value in fields.items() if f"autoencoder.{name}" not in free}
    return used | {"latent_patch_size": model.latent_patch_size}


def vision_fields(model: ModelConfig) -> dict[str, Any]:
    """Returns the fields that determine vision features, besides the parameters: name -> JSON value."""
    return {name: value for name, value in to_json(model.vision).items() if f"vision.{name}" not in _FREE_FIELDS}


def _idle_fields(model: ModelConfig) -> set[str]:
    """Fields that a model does not use."""
    unused = set()
    if model.autoencoder.kind != "flux":
        unused |= {"base_channels", "channel_multipliers", "num_residual_blocks"}
    if model.autoencoder.kind != "transformer":
        unused |= {f"transformer.{sizes.name}" for sizes in dataclasses.fields(VisionConfig)}
    idle = {f"autoencoder.{name}" for name in unused}
    idle |= set() if model.decoder.adapter_rank else {"decoder.adapter_scale"}
    return idle | (set() if model.num_metaqueries else {"metaquery_target"})


def training_layout(model: ModelConfig) -> Layout:
    """The layout of training samples: `layout_of`, with patches for the align loss if the model has its head."""
    return dataclasses.replace(layout_of(model), align=model.align_layer > 0)


def layout_of(model: ModelConfig) -> Layout:
    """Model sizes that determine the layout of tokens."""
    return Layout(
        vit_patch_size=model.vision.patch_size,
        vit_table_side=model.vision.table_side,
        pixels_per_token=model.pixels_per_token,
        max_latent_size=model.max_latent_size,
        num_metaqueries=model.num_metaqueries,
    )
