"""Maps the tensors of a public checkpoint to the leaves of our parameter tree and back.

Parameter tree (kernels are [in, out]; the leaves of `decoder/layers` and `vision/layers` have a leading layer axis,
filled from one public tensor per layer)::

    decoder/embedding, decoder/head/kernel, decoder/norm/{understanding,generation}/scale
    decoder/layers/{understanding,generation}/
        {attention_norm,mlp_norm,query_norm,key_norm}/scale
        {query,key,value}/{kernel,bias}  output/kernel  {gate,up,down}/kernel
    vision/patch_embedding/{kernel,bias}  vision/position_table  vision/norm/{scale,bias}
    vision/layers/
        {attention_norm,mlp_norm}/{scale,bias}  {query,key,value,output,fc1,fc2}/{kernel,bias}
    connector/{fc1,fc2}/{kernel,bias}  timestep_embedder/{fc1,fc2}/{kernel,bias}
    latent_in/{kernel,bias}  latent_out/{kernel,bias}

    metaqueries/table  metaqueries/head/{kernel,bias}  align_head/{fc1,fc2}/{kernel,bias}

No public checkpoint holds UNO's metaqueries or the head of the align loss. They are stored in a separate file, under
names of our choice. The autoencoder's parameters are a separate tree with the public names, except for `kernel`,
`scale` and the attention projections. An entry holds the public name and shape, our path, and an invertible transform.
Reader and writer share the entries.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from uno_jax.models.config import AutoencoderConfig, ModelConfig, VisionConfig
from uno_jax.models.positions import TIME_FEATURES

LeafPath = tuple[str, ...]
Shape = tuple[int, ...]


class Transform(NamedTuple):
    """Axis permutations from the public orientation to ours and back."""

    to_ours: Shape
    to_public: Shape


VECTOR = Transform((0,), (0,))
TABLE = Transform((0, 1), (0, 1))
LINEAR = Transform((1, 0), (1, 0))  # [out, in] <-> [in, out]
CONVOLUTION = Transform((2, 3, 1, 0), (3, 2, 0, 1))  # [out, in, height, width] <-> [height, width, in, out]


@dataclass(frozen=True)
class TensorName:
    """A public tensor and its place in our tree."""

    public: str
    public_shape: Shape
    path: LeafPath
    transform: Transform
    layer: int | None = None
    """Index into the leading layer axis of our leaf; None if the leaf is not stacked."""

    @property
    def shape(self) -> Shape:
        """Shape of the tensor in our tree, without the layer axis."""
        return tuple(self.public_shape[axis] for axis in self.transform.to_ours)

    def to_ours(self, tensor: np.ndarray) -> np.ndarray:
        """Returns a view of the public tensor in our orientation."""
        return tensor.transpose(self.transform.to_ours)

    def to_public(self, leaf: np.ndarray) -> np.ndarray:
        """Returns a view in the public orientation of a leaf without layer axis; the inverse of `to_ours`."""
        return leaf.transpose(self.transform.to_public)


class FixedTable(NamedTuple):
    """A computable position table that public checkpoints store."""

    public: str
    side: int
    features: int

    @property
    def public_shape(self) -> Shape:
        return (self.side**2, self.features)


def fixed_tables(config: ModelConfig) -> list[FixedTable]:
    """Returns the two sin-cos tables that public checkpoints hold and our tree does not."""
    features = config.decoder.hidden_size
    return [
        FixedTable("latent_pos_embed.pos_embed", config.max_latent_size, features),
        FixedTable("vit_pos_embed.pos_embed", config.vision.table_side, features),
    ]


def model_tensors(config: ModelConfig) -> list[TensorName]:
    """Returns the tensors of `ema.safetensors`, without the fixed tables."""
    vision = _vision_tensors(config.vision, "vit_model.vision_model", "vision", 3 * config.vision.patch_size**2)
    return [*_decoder_tensors(config), *_glue_tensors(config), *vision]


def autoencoder_tensors(config: AutoencoderConfig) -> list[TensorName]:
    """Returns the tensors of `ae.safetensors`; none for the pixel autoencoder, which has no parameters."""
    match config.kind:
        case "flux":
            return [*_encoder_half(config), *_decoder_half(config)]
        case "transformer":
            return list(_transformer_autoencoder(config))
        case "pixel":
            return []


def uno_tensors(config: ModelConfig) -> list[TensorName]:
    """Returns the tensors of `uno.safetensors`: metaqueries with their head, and the head of the align loss."""
    features, vision = config.decoder.hidden_size, config.vision.hidden_size
    tensors: list[TensorName] = []
    if config.num_metaqueries:
        target = vision if config.metaquery_target == "vision" else features
        shape = (config.num_metaqueries, features)
        tensors.append(TensorName("metaqueries.table", shape, ("metaqueries", "table"), TABLE))
        tensors += _linear("metaqueries.head", "metaqueries/head", features, target)
    if config.align_layer:
        tensors += _linear("align_head.fc1", "align_head/fc1", features, features)
        tensors += _linear("align_head.fc2", "align_head/fc2", features, vision)
    return tensors


def leaves(tensors: list[TensorName]) -> dict[LeafPath, list[TensorName]]:
    """Groups tensors by the leaf that they fill: one each, or one per layer in layer order."""
    grouped: dict[LeafPath, list[TensorName]] = {}
    for entry in tensors:
        grouped.setdefault(entry.path, []).append(entry)
    return {path: sorted(entries, key=lambda entry: entry.layer or 0) for path, entries in grouped.items()}


def leaf_shape(entries: list[TensorName]) -> Shape:
    """Returns the shape of the leaf that these tensors fill."""
    stacked = entries[0].layer is not None
    return (len(entries), *entries[0].shape) if stacked else entries[0].shape


def _linear(
    public: str, path: str, inputs: int, outputs: int, bias: bool = True, layer: int | None = None
) -> Iterator[TensorName]:
    keys = tuple(path.split("/"))
    yield TensorName(f"{public}.weight", (outputs, inputs), (*keys, "kernel"), LINEAR, layer)
    if bias:
        yield TensorName(f"{public}.bias", (outputs,), (*keys, "bias"), VECTOR, layer)


def _norm(public: str, path: str, features: int, bias: bool = False, layer: int | None = None) -> Iterator[TensorName]:
    keys = tuple(path.split("/"))
    yield TensorName(f"{public}.weight", (features,), (*keys, "scale"), VECTOR, layer)
    if bias:
        yield TensorName(f"{public}.bias", (features,), (*keys, "bias"), VECTOR, layer)


def _decoder_tensors(config: ModelConfig) -> Iterator[TensorName]:
    decoder = config.decoder
    features, vocab, head = decoder.hidden_size, decoder.vocab_size, decoder.head_dim
    queries, keys = decoder.num_heads * head, decoder.num_kv_heads * head
    model = "language_model.model"
    yield TensorName(f"{model}.embed_tokens.weight", (vocab, features), ("decoder", "embedding"), TABLE)
    yield from _linear("language_model.lm_head", "decoder/head", features, vocab, bias=False)
    for expert, suffix in (("understanding", ""), ("generation", "_moe_gen")):
        yield from _norm(f"{model}.norm{suffix}", f"decoder/norm/{expert}", features)
        for layer in range(decoder.num_layers):
            public, path = f"{model}.layers.{layer}", f"decoder/layers/{expert}"
            attention, mlp = f"{public}.self_attn", f"{public}.mlp{suffix}"
            yield from _norm(f"{public}.input_layernorm{suffix}", f"{path}/attention_norm", features, layer=layer)
            yield from _norm(f"{public}.post_attention_layernorm{suffix}", f"{path}/mlp_norm", features, layer=layer)
            yield from _norm(f"{attention}.q_norm{suffix}", f"{path}/query_norm", head, layer=layer)
            yield from _norm(f"{attention}.k_norm{suffix}", f"{path}/key_norm", head, layer=layer)
            yield from _linear(f"{attention}.q_proj{suffix}", f"{path}/query", features, queries, layer=layer)
            yield from _linear(f"{attention}.k_proj{suffix}", f"{path}/key", features, keys, layer=layer)
            yield from _linear(f"{attention}.v_proj{suffix}", f"{path}/value", features, keys, layer=layer)
            yield from _linear(f"{attention}.o_proj{suffix}", f"{path}/output", queries, features, False, layer)
            yield from _linear(f"{mlp}.gate_proj", f"{path}/gate", features, decoder.mlp_size, False, layer)
            yield from _linear(f"{mlp}.up_proj", f"{path}/up", features, decoder.mlp_size, False, layer)
            yield from _linear(f"{mlp}.down_proj", f"{path}/down", decoder.mlp_size, features, False, layer)


def _glue_tensors(config: ModelConfig) -> Iterator[TensorName]:
    features = config.decoder.hidden_size
    yield from _linear("time_embedder.mlp.0", "timestep_embedder/fc1", TIME_FEATURES, features)
    yield from _linear("time_embedder.mlp.2", "timestep_embedder/fc2", features, features)
    yield from _linear("vae2llm", "latent_in", config.latent_size, features)
    yield from _linear("llm2vae", "latent_out", features, config.latent_size)
    yield from _linear("connector.fc1", "connector/fc1", config.vision.hidden_size, features)
    yield from _linear("connector.fc2", "connector/fc2", features, features)


def _vision_tensors(vision: VisionConfig, model: str, part: str, inputs: int) -> Iterator[TensorName]:
    """Names a vision encoder: the tensors of `model`, our subtree `part`, and the width of a patch."""
    features = vision.hidden_size
    yield TensorName(
        f"{model}.embeddings.position_embedding.weight",
        (vision.table_side**2, features),
        (part, "position_table"),
        TABLE,
    )
    yield from _linear(f"{model}.embeddings.patch_embedding", f"{part}/patch_embedding", inputs, features)
    yield from _norm(f"{model}.post_layernorm", f"{part}/norm", features, bias=True)
    for layer in range(vision.num_layers):
        public, path = f"{model}.encoder.layers.{layer}", f"{part}/layers"
        yield from _norm(f"{public}.layer_norm1", f"{path}/attention_norm", features, True, layer)
        yield from _norm(f"{public}.layer_norm2", f"{path}/mlp_norm", features, True, layer)
        for theirs, ours in (("q_proj", "query"), ("k_proj", "key"), ("v_proj", "value"), ("out_proj", "output")):
            yield from _linear(f"{public}.self_attn.{theirs}", f"{path}/{ours}", features, features, layer=layer)
        yield from _linear(f"{public}.mlp.fc1", f"{path}/fc1", features, vision.mlp_size, layer=layer)
        yield from _linear(f"{public}.mlp.fc2", f"{path}/fc2", vision.mlp_size, features, layer=layer)


def _transformer_autoencoder(config: AutoencoderConfig) -> Iterator[TensorName]:
    """Names the transformer autoencoder. Each half has the names of a vision encoder; no public checkpoint has one."""
    sizes, pixels = config.transformer, 3 * config.downsample**2
    yield from _vision_tensors(sizes, "encoder", "encoder", pixels)
    yield from _linear("to_latents", "to_latents", sizes.hidden_size, config.latent_channels)
    yield from _vision_tensors(sizes, "decoder", "decoder", config.latent_channels)
    yield from _linear("to_pixels", "to_pixels", sizes.hidden_size, pixels)


def _convolution(public: str, path: str, inputs: int, outputs: int, side: int = 3) -> Iterator[TensorName]:
    keys = tuple(path.split("/"))
    yield TensorName(f"{public}.weight", (outputs, inputs, side, side), (*keys, "kernel"), CONVOLUTION)
    yield TensorName(f"{public}.bias", (outputs,), (*keys, "bias"), VECTOR)


def _residual_block(public: str, path: str, inputs: int, outputs: int) -> Iterator[TensorName]:
    yield from _norm(f"{public}.norm1", f"{path}/norm1", inputs, bias=True)
    yield from _convolution(f"{public}.conv1", f"{path}/conv1", inputs, outputs)
    yield from _norm(f"{public}.norm2", f"{path}/norm2", outputs, bias=True)
    yield from _convolution(f"{public}.conv2", f"{path}/conv2", outputs, outputs)
    if inputs != outputs:
        yield from _convolution(f"{public}.nin_shortcut", f"{path}/shortcut", inputs, outputs, side=1)


def _middle(half: str, channels: int) -> Iterator[TensorName]:
    yield from _residual_block(f"{half}.mid.block_1", f"{half}/mid/block_1", channels, channels)
    public, path = f"{half}.mid.attn_1", f"{half}/mid/attention"
    yield from _norm(f"{public}.norm", f"{path}/norm", channels, bias=True)
    for theirs, ours in (("q", "query"), ("k", "key"), ("v", "value"), ("proj_out", "output")):
        yield from _convolution(f"{public}.{theirs}", f"{path}/{ours}", channels, channels, side=1)
    yield from _residual_block(f"{half}.mid.block_2", f"{half}/mid/block_2", channels, channels)


def _encoder_half(config: AutoencoderConfig) -> Iterator[TensorName]:
    channels, last = config.base_channels, len(config.channel_multipliers) - 1
    yield from _convolution("encoder.conv_in", "encoder/conv_in", 3, channels)
    for level, multiplier in enumerate(config.channel_multipliers):
        public, path, outputs = f"encoder.down.{level}", f"encoder/down_{level}", config.base_channels * multiplier
        for block in range(config.num_residual_blocks):
            yield from _residual_block(f"{public}.block.{block}", f"{path}/block_{block}", channels, outputs)
            channels = outputs
        if level < last:
            yield from _convolution(f"{public}.downsample.conv", f"{path}/downsample", channels, channels)
    yield from _middle("encoder", channels)
    yield from _norm("encoder.norm_out", "encoder/norm_out", channels, bias=True)
    yield from _convolution("encoder.conv_out", "encoder/conv_out", channels, 2 * config.latent_channels)


def _decoder_half(config: AutoencoderConfig) -> Iterator[TensorName]:
    channels = config.base_channels * config.channel_multipliers[-1]
    yield from _convolution("decoder.conv_in", "decoder/conv_in", config.latent_channels, channels)
    yield from _middle("decoder", channels)
    for level, multiplier in reversed(list(enumerate(config.channel_multipliers))):
        public, path, outputs = f"decoder.up.{level}", f"decoder/up_{level}", config.base_channels * multiplier
        for block in range(config.num_residual_blocks + 1):
            yield from _residual_block(f"{public}.block.{block}", f"{path}/block_{block}", channels, outputs)
            channels = outputs
        if level > 0:
            yield from _convolution(f"{public}.upsample.conv", f"{path}/upsample", channels, channels)
    yield from _norm("decoder.norm_out", "decoder/norm_out", channels, bias=True)
    yield from _convolution("decoder.conv_out", "decoder/conv_out", channels, 3)
