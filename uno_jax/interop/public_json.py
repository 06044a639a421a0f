"""Builds the JSON files of a public-layout directory; `sizes.py` reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from uno_jax.interop.sizes import OUR_SECTION, UNO_JSON
from uno_jax.models.config import AutoencoderConfig, DecoderConfig, ModelConfig, VisionConfig


def public_json(
    config: ModelConfig, imported: Mapping[str, Any], sampling: Mapping[str, Any], versions: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """Returns the content of each JSON file by name. Imported fields are kept, and missing ones are added.

    Args:
      config: sizes of the model.
      imported: the imported JSON files (`Provenance.json`).
      sampling: transforms and time shift, for our own section of `config.json`.
      versions: versions of the exporting packages, for the same section.
    """
    decoder, vision = _decoder(config.decoder), _vision(config.vision)
    generated = {
        "model_type": "bagel",
        "visual_gen": True,
        "visual_und": True,
        "llm_config": decoder,
        "vit_config": vision,
        "vae_config": _autoencoder(config.autoencoder),
        "latent_patch_size": config.latent_patch_size,
        "max_latent_size": config.max_latent_size,
        "vit_max_num_patch_per_side": config.vision.table_side,
        "connector_act": "gelu_pytorch_tanh",
        "interpolate_pos": False,
    }
    top = dict(imported.get("config.json", {}))
    top |= {name: value for name, value in generated.items() if name not in top}
    top[OUR_SECTION] = {
        "prediction": config.prediction,
        "not_public": not_public(config),
        **sampling,
        "versions": dict(versions),
    }
    files = {
        "llm_config.json": imported.get("llm_config.json", decoder),
        "vit_config.json": imported.get("vit_config.json", vision),
        "config.json": top,
    }
    added: dict[str, Any] = {}
    if config.num_metaqueries:
        added |= {"num_metaqueries": config.num_metaqueries, "metaquery_target": config.metaquery_target}
    if config.align_layer:
        added["align_layer"] = config.align_layer
    return files | ({UNO_JSON: added} if added else {})


def not_public(config: ModelConfig) -> list[str]:
    """Returns one sentence for each property of the model that the public implementation does not support."""
    heads, kind = config.decoder.num_heads * config.decoder.head_dim, config.autoencoder.kind
    facts = (
        (kind != "flux", f"its autoencoder is the {kind} autoencoder, not FLUX's"),
        (config.prediction != "velocity", f"its output projection predicts {config.prediction}, not the velocity"),
        (heads != config.decoder.hidden_size, "heads times head size is not the hidden size of its decoder"),
    )
    return [sentence for holds, sentence in facts if holds]


def public_code_fields(config: ModelConfig) -> dict[str, tuple[Any, Any]]:
    """Returns the sizes that are constants of the public code and differ from the published ones.

    The public implementation reads neither `config.json` nor `uno_config.json`. These constants must be changed in its
    code before it can load the model.

    Returns:
      Public name -> (value of this model, published value).
    """
    ours, published = _code_fields(config), _code_fields(ModelConfig())
    return {name: (ours[name], published[name]) for name in ours if ours[name] != published[name]}


def _code_fields(config: ModelConfig) -> dict[str, Any]:
    return {
        "latent_patch_size": config.latent_patch_size,
        "max_latent_size": config.max_latent_size,
        "vit_max_num_patch_per_side": config.vision.table_side,
        # `not_public` reports the other kind of autoencoder.
        **(_autoencoder(config.autoencoder) if config.autoencoder.kind == "flux" else {}),
    }


def _decoder(config: DecoderConfig) -> dict[str, Any]:
    fields = {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "intermediate_size": config.mlp_size,
        "vocab_size": config.vocab_size,
        "rope_theta": config.rope_theta,
        "rms_norm_eps": config.norm_eps,
        "hidden_act": "silu",
        "qk_norm": True,
        "tie_word_embeddings": False,
        "layer_module": "Qwen2MoTDecoderLayer",
        "attention_dropout": 0.0,
        "max_position_embeddings": config.context_length,
        "use_sliding_window": False,
    }
    if config.num_heads * config.head_dim != config.hidden_size:
        fields["head_dim"] = config.head_dim
    return fields


def _vision(config: VisionConfig) -> dict[str, Any]:
    return {
        "model_type": "siglip_vision_model",
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_layers + 1,  # readers drop the last layer, which no checkpoint holds
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.mlp_size,
        "patch_size": config.patch_size,
        "image_size": config.table_side * config.patch_size,
        "layer_norm_eps": config.norm_eps,
        "num_channels": 3,
        "hidden_act": "gelu_pytorch_tanh",
        "attention_dropout": 0.0,
    }


def _autoencoder(config: AutoencoderConfig) -> dict[str, Any]:
    common = {"downsample": config.downsample, "scale_factor": config.scale, "shift_factor": config.shift}
    if config.kind == "pixel":
        return {"kind": "pixel", **common}
    if config.kind == "transformer":
        transformer = _vision(config.transformer)
        return {"kind": "transformer", "z_channels": config.latent_channels, "transformer": transformer, **common}
    return {
        "ch": config.base_channels,
        "ch_mult": list(config.channel_multipliers),
        "num_res_blocks": config.num_residual_blocks,
        "z_channels": config.latent_channels,
        "in_channels": 3,
        "out_ch": 3,
        **common,
    }
