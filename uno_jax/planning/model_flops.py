"""FLOPs that the model needs, whatever the program does: the yardstick for what is executed.

Of every weight matrix, 2 a token for the product, 2 for the gradient that passes through it, 2 for its own gradient if
it is trained; 12 a visible pair, head and head feature for attention (4 forward, 8 backward); nothing for what is
computed again. Encoders only run forward: 2 a patch and weight, 4 a visible pair, head and head feature; where they are
trained, 6 and 12 for patches of the context (those of targets get no gradient).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from flax.traverse_util import flatten_dict
from jaxtyping import Int

from uno_jax.models.config import ModelConfig
from uno_jax.planning.example import Example
from uno_jax.training.report import part_of
from uno_jax.training.state import Params

# Leaves that are looked up, not multiplied with.
TABLES = ("embedding", "table", "position_table")
ENCODERS = ("vision encoder", "connector")


def model_flops(
    trainable: Params, frozen: Params, example: Example, model: ModelConfig, *, answers: bool = False
) -> dict[str, float]:
    """FLOPs of one step on one row, by part of the model; attention apart.

    Args:
      trainable: shapes of the parameters that are trained.
      frozen: of the others.
      example: the row.
      model: sizes of the model.
      answers: whether the vocabulary head runs on context text too.
    """
    tokens = example.tokens()
    needed: dict[str, float] = {}
    for tree, trained in ((trainable, True), (frozen, False)):
        for path, leaf in flatten_dict(tree, sep="/").items():
            part = part_of(path)
            if part in ENCODERS:
                in_target = path.startswith("vision") or model.metaquery_target == "connector"
                a_weight = (6 if trained else 2) * tokens["vit"] + 2 * tokens["query"] * in_target
            else:
                a_weight = (6 if trained else 4) * _tokens_of(path, tokens, answers)
            needed[part] = needed.get(part, 0.0) + _weights(path, leaf.shape) * a_weight
    decoder = model.decoder
    needed["attention"] = 12.0 * example.visible_pairs() * decoder.num_layers * decoder.num_heads * decoder.head_dim
    if "vision encoder" in needed:
        row, a_feature = example.row, model.vision.num_layers * model.vision.hidden_size
        context, targets = _patch_pairs(row.vit_image), _patch_pairs(row.target_image)
        needed["vision encoder"] += ((12.0 if "vision" in trainable else 4.0) * context + 4.0 * targets) * a_feature
    return {part: flops for part, flops in needed.items() if flops}


def forward_flops(params: Params, tokens: Mapping[str, int], visible_pairs: int, model: ModelConfig) -> float:
    """FLOPs of one forward pass without encoders: 2 a token and weight, 4 a visible pair, head and head feature."""
    decoder = model.decoder
    flops = 4.0 * visible_pairs * decoder.num_layers * decoder.num_heads * decoder.head_dim
    for path, leaf in flatten_dict(params, sep="/").items():
        if part_of(path) not in ENCODERS:
            flops += 2.0 * _weights(path, leaf.shape) * _tokens_of(path, tokens, answers=False)
    return flops


def encoder_share(needed: Mapping[str, float]) -> float:
    """Share of the step's FLOPs that encoders cost."""
    return sum(needed.get(part, 0.0) for part in ENCODERS) / sum(needed.values())


def _weights(path: str, shape: tuple[int, ...]) -> int:
    """Weights of a matrix, of all layers; 0 for a table, a bias or a scale."""
    matrix = len(shape) - ("/layers/" in path) >= 2
    return math.prod(shape) if matrix and path.rsplit("/", 1)[-1] not in TABLES else 0


def _tokens_of(path: str, tokens: Mapping[str, int], answers: bool) -> int:
    """Tokens that a leaf's matrix meets; of encoders' leaves, none."""
    if path.startswith(("decoder/layers/generation", "latent_", "timestep_embedder")):
        return tokens["latent"]
    if path.startswith("decoder/layers/understanding"):
        return tokens["text"] + tokens["vit"] + tokens["caption"] + tokens["query"]
    if path.startswith("decoder/head"):
        return tokens["caption"] + tokens["text"] * answers
    return tokens["query"] if path.startswith("metaqueries") else 0


def _patch_pairs(image: Int[np.ndarray, "rows patches"]) -> int:
    """Pairs of vision patches of one image; `image` is its number, 0 is padding."""
    return sum(int((image == number).sum()) ** 2 for number in set(image.reshape(-1).tolist()) - {0})
