"""FLOPs that the model needs, whatever the program does: the yardstick for what is executed.

Of every weight matrix, 2 a token for the product, 2 for the gradient that passes through it, 2 for its own gradient if
it is trained; 12 a visible pair, head and head feature for attention (4 forward, 8 backward); nothing for what is
computed again. Encoders only run forward: 2 a token and weight, 4 a visible pair, unless they are trained.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from flax.traverse_util import flatten_dict

from uno_jax.models.config import ModelConfig
from uno_jax.planning.example import Example
from uno_jax.training.report import part_of
from uno_jax.training.state import Params

# Leaves that are looked up, not multiplied with.
TABLES = ("embedding", "table", "position_table")
ENCODERS = ("vision encoder", "connector")


def model_flops(trainable: Params, frozen: Params, example: Example, model: ModelConfig) -> dict[str, float]:
    """FLOPs of one step on one row, by part of the model; attention apart.

    Args:
      trainable: shapes of the parameters that are trained.
      frozen: of the others.
      example: the row.
      model: sizes of the model.
    """
    tokens = example.tokens()
    needed: dict[str, float] = {}
    for tree, trained in ((trainable, True), (frozen, False)):
        for path, leaf in flatten_dict(tree, sep="/").items():
            part, weights = part_of(path), _weights(path, leaf.shape)
            forward_only = part in ENCODERS and not trained
            needed[part] = needed.get(part, 0.0) + weights * _tokens_of(path, tokens) * (
                2 if forward_only else 6 if trained else 4
            )
    decoder = model.decoder
    needed["attention"] = 12.0 * example.visible_pairs() * decoder.num_layers * decoder.num_heads * decoder.head_dim
    if "vision encoder" in needed:
        vision = model.vision
        needed["vision encoder"] += 4.0 * _patch_pairs(example) * vision.num_layers * vision.hidden_size
    return {part: flops for part, flops in needed.items() if flops}


def forward_flops(params: Params, tokens: Mapping[str, int], visible_pairs: int, model: ModelConfig) -> float:
    """FLOPs of one forward pass without encoders: 2 a token and weight, 4 a visible pair, head and head feature."""
    decoder = model.decoder
    flops = 4.0 * visible_pairs * decoder.num_layers * decoder.num_heads * decoder.head_dim
    for path, leaf in flatten_dict(params, sep="/").items():
        if part_of(path) not in ENCODERS:
            flops += 2.0 * _weights(path, leaf.shape) * _tokens_of(path, tokens)
    return flops


def encoder_share(needed: Mapping[str, float]) -> float:
    """Share of the step's FLOPs that encoders cost."""
    return sum(needed.get(part, 0.0) for part in ENCODERS) / sum(needed.values())


def _weights(path: str, shape: tuple[int, ...]) -> int:
    """Weights of a matrix, of all layers; 0 for a table, a bias or a scale."""
    matrix = len(shape) - ("/layers/" in path) >= 2
    return math.prod(shape) if matrix and path.rsplit("/", 1)[-1] not in TABLES else 0


def _tokens_of(path: str, tokens: Mapping[str, int]) -> int:
    """Tokens that a leaf's matrix meets."""
    if path.startswith(("decoder/layers/generation", "latent_", "timestep_embedder")):
        return tokens["latent"]
    if path.startswith("decoder/layers/understanding"):
        return tokens["text"] + tokens["vit"] + tokens["caption"] + tokens["query"]
    if path.startswith("decoder/head"):
        return tokens["caption"]
    if path.startswith("metaqueries"):
        return tokens["query"]
    if path.startswith("vision"):
        return tokens["vit"] + tokens["query"]
    return tokens["vit"]


def _patch_pairs(example: Example) -> int:
    """Pairs of vision patches of one image."""
    row, total = example.row, 0
    for image in (row.vit_image, row.target_image):
        for number in set(image.reshape(-1).tolist()) - {0}:
            total += int((image == number).sum()) ** 2
    return total
