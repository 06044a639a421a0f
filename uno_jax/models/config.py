"""Sizes of the model. The defaults are the published BAGEL-7B-MoT constants (conventions of the public loader)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from flax.traverse_util import flatten_dict

from uno_jax.attention.attend import Attention
from uno_jax.batch import Layout
from uno_jax.config import Dtype, to_json

Remat = Literal["none", "dots", "save_projections", "save_attention", "full", "offload"]
"""What the backward pass recomputes, from the one that recomputes nothing to the one that keeps least on the device."""
MetaqueryTarget = Literal["vision", "connector"]
Prediction = Literal["velocity", "x0"]


@dataclass(frozen=True)
class DecoderConfig:
    """The two-expert decoder. `scan_unroll`, `remat` and `attention` change speed and memory, never a checkpoint."""

    hidden_size: int = 3584
    num_layers: int = 28
    num_heads: int = 28
    num_kv_heads: int = 4
    head_dim: int = 128
    mlp_size: int = 18944
    vocab_size: int = 152064
    rope_theta: float = 1e6
    norm_eps: float = 1e-6
    scan_unroll: int = 1
    """How many layers one iteration of the layer scan holds; num_layers = no loop at all."""
    remat: Remat = "none"
    """What the backward pass recomputes: nothing (`none`); or all of a layer but what the policy keeps.

    `offload` keeps the layer's input, in host memory; `full` the input; `save_attention` also what the attention kernel
    gave (any other attention runs again); `save_projections` also queries, keys, values and the sum after attention, so
    that the MLP runs again; `dots` all matrix products.
    """
    attention: Attention = "auto"
    """`kernel` (Pallas, for TPU; holds no scores), `dense` (all scores in memory), or `auto`: kernel on a TPU."""
    adapter_rank: int = 0
    """Of low-rank adapters on every linear layer of the generation expert; 0: none."""
    adapter_scale: float = 2.0
    """What adapters compute is added so many times (often written alpha / rank)."""


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
    """All as in DecoderConfig."""


@dataclass(frozen=True)
class AutoencoderConfig:
    """The FLUX autoencoder (`kind="flux"`), or a parameter-free space-to-depth (`kind="pixel"`) for laptops."""

    kind: Literal["flux", "pixel"] = "flux"
    base_channels: int = 128
    channel_multipliers: tuple[int, ...] = (1, 2, 4, 4)
    num_residual_blocks: int = 2
    latent_channels: int = 16
    """Must be 3 * downsample ** 2 for the pixel autoencoder."""
    downsample: int = 8
    """Pixels per latent, a side. Must be 2 ** (len(channel_multipliers) - 1) for the FLUX autoencoder."""
    scale: float = 0.3611
    shift: float = 0.1159
    attention: Attention = "auto"
    """As in DecoderConfig."""


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
    """Rows of the metaquery table: the most patches that `metaquery_transform` may give. 0: no metaqueries."""
    metaquery_target: MetaqueryTarget = "vision"
    """What the metaqueries predict: `vision` (the ViT's output) or `connector` (the connector's)."""
    prediction: Prediction = "velocity"
    """What the output projection means: `velocity`, or `x0` (the loss is the velocity's either way)."""
    compute_dtype: Dtype = "float32"
    """Of matrix products. Norms, RoPE, softmax and losses are always float32."""

    @property
    def latent_size(self) -> int:
        """Width of one latent token: a patch of latents, flattened (row, column, channel)."""
        return self.latent_patch_size**2 * self.autoencoder.latent_channels

    @property
    def pixels_per_token(self) -> int:
        """Side, in pixels, of the square under one latent token."""
        return self.latent_patch_size * self.autoencoder.downsample


# Fields that change speed, memory or precision, and not what the parameters are or mean.
_FREE_FIELDS = (
    "decoder.scan_unroll",
    "decoder.remat",
    "decoder.attention",
    "vision.scan_unroll",
    "vision.remat",
    "vision.attention",
    "autoencoder.attention",
    "compute_dtype",
)


def model_differences(first: ModelConfig, second: ModelConfig) -> dict[str, tuple[Any, Any]]:
    """Fields by which two models are not the same, by their paths with dots, with both values (as JSON).

    Fields that change speed or precision alone are left out, and so are those that mean nothing in either model.
    """
    ours, theirs = (flatten_dict(to_json(model), sep=".") for model in (first, second))
    free = set(_FREE_FIELDS) | (_idle_fields(first) & _idle_fields(second))
    return {name: (ours[name], theirs[name]) for name in ours if ours[name] != theirs[name] and name not in free}


def _idle_fields(model: ModelConfig) -> set[str]:
    """Fields that mean nothing in a model."""
    flux = ("base_channels", "channel_multipliers", "num_residual_blocks")
    idle = {f"autoencoder.{name}" for name in flux} if model.autoencoder.kind == "pixel" else set()
    idle |= set() if model.decoder.adapter_rank else {"decoder.adapter_scale"}
    return idle | (set() if model.num_metaqueries else {"metaquery_target"})


def layout_of(model: ModelConfig) -> Layout:
    """The sizes of the model that shape tokens."""
    return Layout(
        vit_patch_size=model.vision.patch_size,
        vit_table_side=model.vision.table_side,
        pixels_per_token=model.pixels_per_token,
        max_latent_size=model.max_latent_size,
        num_metaqueries=model.num_metaqueries,
    )
