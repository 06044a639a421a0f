"""Reads the sizes of a model from the JSON files of a public-layout directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

from uno_jax.interop.json_object import number, read_object, section
from uno_jax.models.autoencoder import GROUP_NORM_GROUPS
from uno_jax.models.config import (
    AutoencoderConfig,
    AutoencoderKind,
    DecoderConfig,
    MetaqueryTarget,
    ModelConfig,
    Prediction,
    VisionConfig,
)
from uno_jax.process.errors import CheckpointError

# (field, the only supported value). The public loader overrides further fields (q/k norm on, untied head, two-expert
# layers, no rope in the ViT). Those are not read here. Tensors that contradict them are an error.
_DECODER_CHOICES = (("hidden_act", "silu"), ("use_sliding_window", False), ("partial_rotary_factor", 1.0))
_VISION_CHOICES = (("hidden_act", "gelu_pytorch_tanh"), ("num_channels", 3))
_MODEL_CHOICES = (("connector_act", "gelu_pytorch_tanh"), ("interpolate_pos", False))
_AUTOENCODER_CHOICES = (("in_channels", 3), ("out_ch", 3))


_MOST_LAYERS = 1000  # a tensor name is made for each of them

UNO_JSON = "uno_config.json"
"""File with the number of UNO's metaqueries and the layer of the align loss, next to `uno.safetensors`."""

OUR_SECTION = "uno_jax"
"""Section of `config.json` for fields that the public format lacks: the prediction target (`prediction`), the
transforms and the time shift for sampling, and the versions of the exporting packages."""


def model_config_from_directory(directory: str | Path) -> ModelConfig:
    """Reads the sizes of the model in a public-layout directory.

    `llm_config.json` and `vit_config.json` take precedence over the sections `llm_config`, `vit_config` and
    `vae_config` of `config.json`. The published constants (the defaults of `ModelConfig`) complete them. The vision
    tower has one layer fewer than its JSON says, because the last is dropped. `uno_config.json` describes what no
    public checkpoint has: the metaqueries and the head of the align loss.

    Raises:
      CheckpointError: the directory is missing, a file does not hold a JSON object, a field has an invalid type or an
        unsupported value, or sizes contradict each other. The message names file and field.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise CheckpointError(f"{directory}: no such directory")
    top = _Fields.read(directory / "config.json")
    decoder_fields = _Fields.read(directory / "llm_config.json").over(top.section("llm_config"))
    vision_fields = _Fields.read(directory / "vit_config.json").over(top.section("vit_config"))
    autoencoder_fields = top.section("vae_config")
    top.require(_MODEL_CHOICES)
    ours, added = top.section(OUR_SECTION), _Fields.read(directory / UNO_JSON)
    align_layer = added.integer("align_layer", None) if "align_layer" in added.values else 0
    no_queries = not (directory / UNO_JSON).exists() or (align_layer and "num_metaqueries" not in added.values)
    defaults = ModelConfig()
    return ModelConfig(
        decoder=_decoder(decoder_fields),
        vision=_vision(vision_fields, top),
        autoencoder=_autoencoder(autoencoder_fields),
        latent_patch_size=top.integer("latent_patch_size", defaults.latent_patch_size),
        max_latent_size=top.integer("max_latent_size", defaults.max_latent_size),
        num_metaqueries=0 if no_queries else added.integer("num_metaqueries", None),
        metaquery_target=added.choice("metaquery_target", get_args(MetaqueryTarget)),
        align_layer=align_layer,
        prediction=ours.choice("prediction", get_args(Prediction)),
    )


def _decoder(fields: _Fields) -> DecoderConfig:
    fields.require(_DECODER_CHOICES)
    _require_plain_rope(fields)
    defaults = DecoderConfig()
    hidden = fields.integer("hidden_size", defaults.hidden_size)
    heads = fields.integer("num_attention_heads", defaults.num_heads)
    kv_heads = fields.integer("num_key_value_heads", defaults.num_kv_heads)
    head_dim = fields.integer("head_dim", hidden // heads)
    if heads % kv_heads:
        raise CheckpointError(
            f"{fields.where}: num_attention_heads {heads} is not a multiple of num_key_value_heads {kv_heads}"
        )
    if head_dim % 2 or ("head_dim" not in fields.values and hidden % heads):
        raise CheckpointError(
            f"{fields.where}: hidden_size {hidden} over num_attention_heads {heads} does not give an even head size"
        )
    if hidden % 4:
        raise CheckpointError(
            f"{fields.where}: hidden_size is {hidden}; the fixed position tables need a multiple of 4 features"
        )
    return DecoderConfig(
        hidden_size=hidden,
        num_layers=fields.integer("num_hidden_layers", defaults.num_layers, most=_MOST_LAYERS),
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        mlp_size=fields.integer("intermediate_size", defaults.mlp_size),
        vocab_size=fields.integer("vocab_size", defaults.vocab_size),
        rope_theta=fields.number("rope_theta", defaults.rope_theta, positive=True),
        norm_eps=fields.number("rms_norm_eps", defaults.norm_eps, positive=True),
        context_length=fields.integer("max_position_embeddings", defaults.context_length),
    )


def _require_plain_rope(fields: _Fields) -> None:
    """Refuses rotary positions and attention of other models, which this decoder would silently replace."""
    for name in ("rope_scaling", "rope_parameters"):
        rope: Any = fields.values.get(name)
        plain = isinstance(rope, dict) and rope.get("rope_type", rope.get("type", "default")) == "default"
        theta = rope.get("rope_theta", fields.values.get("rope_theta")) if plain else None
        if rope is not None and (not plain or theta != fields.values.get("rope_theta")):
            raise CheckpointError(f"{fields.where}: {name} is {rope!r}; only unscaled positions (null) are supported")
    layers = fields.values.get("layer_types")
    if layers is not None and (not isinstance(layers, list) or any(layer != "full_attention" for layer in layers)):
        raise CheckpointError(f"{fields.where}: layer_types is {layers!r}; only 'full_attention' is supported")


def _vision(fields: _Fields, top: _Fields) -> VisionConfig:
    sizes = _vision_sizes(fields)
    fixed_side = top.integer("vit_max_num_patch_per_side", VisionConfig().table_side)
    if sizes.table_side != fixed_side:
        raise CheckpointError(
            f"{fields.where}: image_size and patch_size give a learned position table of side {sizes.table_side}, but "
            f"vit_max_num_patch_per_side of {top.where} (default {VisionConfig().table_side}) is {fixed_side}; "
            "the same position ids index both tables, so the sides must agree"
        )
    return sizes


def _vision_sizes(fields: _Fields) -> VisionConfig:
    fields.require(_VISION_CHOICES)
    defaults = VisionConfig()
    hidden = fields.integer("hidden_size", defaults.hidden_size)
    heads = fields.integer("num_attention_heads", defaults.num_heads)
    if hidden % heads:
        raise CheckpointError(f"{fields.where}: hidden_size {hidden} is not a multiple of num_attention_heads {heads}")
    patch = fields.integer("patch_size", defaults.patch_size)
    layers_in_json = fields.integer("num_hidden_layers", defaults.num_layers + 1, most=_MOST_LAYERS)
    if layers_in_json < 2:
        raise CheckpointError(
            f"{fields.where}: num_hidden_layers is {layers_in_json}; expected at least 2, because the last "
            "layer is dropped"
        )
    return VisionConfig(
        hidden_size=hidden,
        num_layers=layers_in_json - 1,
        num_heads=heads,
        mlp_size=fields.integer("intermediate_size", defaults.mlp_size),
        patch_size=patch,
        table_side=fields.integer("image_size", defaults.table_side * defaults.patch_size) // patch,
        norm_eps=fields.number("layer_norm_eps", defaults.norm_eps, positive=True),
    )


def _autoencoder(fields: _Fields) -> AutoencoderConfig:
    fields.require(_AUTOENCODER_CHOICES)
    defaults = AutoencoderConfig()
    kind = fields.choice("kind", get_args(AutoencoderKind))
    if kind == "transformer":
        return _transformer_autoencoder(fields)
    if kind == "pixel":
        downsample = fields.integer("downsample", None)
        return AutoencoderConfig(
            kind="pixel",
            latent_channels=3 * downsample**2,
            downsample=downsample,
            scale=fields.number("scale_factor", 1.0),
            shift=fields.number("shift_factor", 0.0),
        )
    multipliers = fields.values.get("ch_mult", list(defaults.channel_multipliers))
    if (
        not isinstance(multipliers, list)
        or not 0 < len(multipliers) <= 10
        or any(type(m) is not int for m in multipliers)
    ):
        raise CheckpointError(f"{fields.where}: ch_mult is {multipliers!r}; expected a list of at most 10 integers")
    if not all(0 < multiplier <= 1000 for multiplier in multipliers):
        raise CheckpointError(f"{fields.where}: ch_mult is {multipliers!r}; expected integers from 1 to 1000")
    downsample = fields.integer("downsample", 2 ** (len(multipliers) - 1))
    if downsample != 2 ** (len(multipliers) - 1):
        raise CheckpointError(
            f"{fields.where}: downsample is {downsample}, but {len(multipliers)} levels of ch_mult halve the image "
            f"{len(multipliers) - 1} times"
        )
    channels = fields.integer("ch", defaults.base_channels)
    if any(channels * multiplier % GROUP_NORM_GROUPS for multiplier in multipliers):
        raise CheckpointError(
            f"{fields.where}: ch {channels} times ch_mult {multipliers} are not multiples of {GROUP_NORM_GROUPS}, the "
            "number of groups of the autoencoder's group norms"
        )
    return AutoencoderConfig(
        kind="flux",
        base_channels=channels,
        channel_multipliers=tuple(multipliers),
        num_residual_blocks=fields.integer("num_res_blocks", defaults.num_residual_blocks, most=_MOST_LAYERS),
        latent_channels=fields.integer("z_channels", defaults.latent_channels),
        downsample=downsample,
        scale=fields.number("scale_factor", defaults.scale),
        shift=fields.number("shift_factor", defaults.shift),
    )


def _transformer_autoencoder(fields: _Fields) -> AutoencoderConfig:
    transformer, downsample = _vision_sizes(fields.section("transformer")), fields.integer("downsample", None)
    if transformer.patch_size != downsample:
        raise CheckpointError(
            f"{fields.where}: downsample is {downsample}, but patch_size of its transformer is "
            f"{transformer.patch_size}; a latent is written for each patch, so they must agree"
        )
    return AutoencoderConfig(
        kind="transformer",
        latent_channels=fields.integer("z_channels", None),
        downsample=downsample,
        scale=fields.number("scale_factor", 1.0),
        shift=fields.number("shift_factor", 0.0),
        transformer=transformer,
    )


class _Fields:
    """Fields of a JSON object, and its name in error messages."""

    def __init__(self, values: dict[str, Any], where: str):
        self.values = values
        self.where = where

    @classmethod
    def read(cls, path: Path) -> _Fields:
        """Reads the object in a file; a missing file has no fields."""
        return cls(read_object(path) if path.exists() else {}, str(path))

    def section(self, name: str) -> _Fields:
        """Returns the object stored under a field; a missing field has no fields."""
        return _Fields(section(self.values, name, self.where), f"{self.where}, {name}")

    def over(self, fallback: _Fields) -> _Fields:
        """Returns these fields, completed by those of the fallback."""
        where = self.where if self.values else fallback.where
        return _Fields(fallback.values | self.values, where)

    def integer(self, name: str, default: int | None, most: int = 2**31 - 1) -> int:
        value = self.values.get(name, default)
        if type(value) is not int or not 0 < value <= most:
            raise CheckpointError(f"{self.where}: {name} is {value!r}; expected a positive integer of at most {most}")
        return value

    def number(self, name: str, default: float, *, positive: bool = False) -> float:
        return number(self.values, name, default, self.where, positive=positive)

    def choice(self, name: str, choices: tuple[Any, ...]) -> Any:
        """Returns one of the choices. The default is the first."""
        value: str = self.values.get(name, choices[0])
        if value not in choices:
            raise CheckpointError(f"{self.where}: {name} is {value!r}; expected {' or '.join(choices)}")
        return value

    def require(self, choices: tuple[tuple[str, Any], ...]) -> None:
        for name, implemented in choices:
            value = self.values.get(name, implemented)
            if value != implemented:
                raise CheckpointError(f"{self.where}: {name} is {value!r}; only {implemented!r} is supported")
