"""Model FLOPs: the arithmetic that the model needs, independent of the program. Executed FLOPs are compared with them.

- A weight matrix takes 2 FLOPs per weight and token for the product, 2 for the gradient of its input, and 2 for its own
  gradient if it is trained.
- Attention takes 12 per visible pair, head and head feature (4 forward, 8 backward).
- Rematerialisation does not count.
- The starting model of the anchor loss runs forward only, without captions and metaqueries.
- Encoders run forward only: 2 per patch and weight, 4 per visible pair, head and head feature. Trained encoders take 6
  and 12 for patches of the context. Patches of targets get no gradient. With precomputed features the vision encoder
  does not run.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import numpy as np
from flax.traverse_util import flatten_dict
from jaxtyping import Int

from uno_jax.models.apart import stacked
from uno_jax.models.config import ModelConfig
from uno_jax.objectives.losses import Need
from uno_jax.planning.example import Example
from uno_jax.training.report import part_of
from uno_jax.training.state import Params, merge

# Leaves used as lookup tables, not in matrix products.
TABLES = ("embedding", "table", "position_table")
ENCODERS = ("vision encoder", "connector")


def model_flops(
    trainable: Params,
    frozen: Params,
    example: Example,
    model: ModelConfig,
    needs: Collection[Need] = (),
    *,
    features: bool = False,
) -> dict[str, float]:
    """Counts the FLOPs of one train step on one row, by part of the model. Attention is a part of its own.

    Args:
      trainable: shapes of the trainable parameters.
      frozen: shapes of the frozen parameters.
      example: the row.
      model: sizes of the model.
      needs: outputs of the model that the losses need.
      features: whether vision features are precomputed, so that the vision encoder does not run.
    """
    tokens = example.tokens()
    targets = tokens["query"] + tokens["latent"] * ("align" in needs)
    needed: dict[str, float] = {}
    for tree, trained in ((trainable, True), (frozen, False)):
        for path, leaf in flatten_dict(stacked(tree), sep="/").items():
            part = part_of(path)
            if part == "vision encoder" and features:
                continue
            if part in ENCODERS:
                of_targets = {"vision": targets, "connector": tokens["query"] * (model.metaquery_target == "connector")}
                a_weight = (6 if trained else 2) * tokens["vit"] + 2 * of_targets[path.split("/")[0]]
            else:
                a_weight = (6 if trained else 4) * _tokens_of(path, tokens, needs)
            needed[part] = needed.get(part, 0.0) + _weights(path, leaf.shape) * a_weight
    decoder = model.decoder
    needed["attention"] = 12.0 * example.visible_pairs() * decoder.num_layers * decoder.num_heads * decoder.head_dim
    if "vision encoder" in needed:
        row, a_feature = example.row, model.vision.num_layers * model.vision.hidden_size
        context, pairs = _patch_pairs(row.vit_image), _patch_pairs(row.target_image)
        if "align" in needs and row.align_image is not None:
            pairs += _patch_pairs(row.align_image)
        needed["vision encoder"] += ((12.0 if "vision" in trainable else 4.0) * context + 4.0 * pairs) * a_feature
    if "start" in needs:
        start, alone = merge(trainable, frozen), tokens | {"caption": 0, "query": 0}
        needed["starting model"] = forward_flops(start, alone, example.visible_pairs(supervision=False), model)
    return {part: flops for part, flops in needed.items() if flops}


def forward_flops(params: Params, tokens: Mapping[str, int], visible_pairs: int, model: ModelConfig) -> float:
    """Counts the FLOPs of one forward pass without encoders.

    A weight takes 2 per token; attention takes 4 per visible pair, head and head feature.
    """
    decoder = model.decoder
    flops = 4.0 * visible_pairs * decoder.num_layers * decoder.num_heads * decoder.head_dim
    for path, leaf in flatten_dict(stacked(params), sep="/").items():
        if part_of(path) not in ENCODERS:
            flops += 2.0 * _weights(path, leaf.shape) * _tokens_of(path, tokens)
    return flops


def encoder_share(needed: Mapping[str, float]) -> float:
    """Returns the encoders' share of a step's FLOPs."""
    return sum(needed.get(part, 0.0) for part in ENCODERS) / sum(needed.values())


def _weights(path: str, shape: tuple[int, ...]) -> int:
    """Number of weights of a matrix, over all layers; 0 for a table, a bias or a scale."""
    matrix = len(shape) - ("/layers/" in path) >= 2
    return math.prod(shape) if matrix and path.rsplit("/", 1)[-1] not in TABLES else 0


def _tokens_of(path: str, tokens: Mapping[str, int], needs: Collection[Need] = ()) -> int:
    """Number of tokens that a leaf is multiplied with; 0 for leaves of encoders."""
    if path.startswith(("decoder/layers/generation", "latent_", "timestep_embedder")):
        return tokens["latent"]
    if path.startswith("decoder/layers/understanding"):
        return tokens["text"] + tokens["vit"] + tokens["caption"] + tokens["query"]
    if path.startswith("decoder/head"):
        return tokens["caption"] + tokens["text"] * ("answers" in needs)
    if path.startswith("align_head"):
        return tokens["latent"] * ("align" in needs)
    return tokens["query"] if path.startswith("metaqueries") else 0


def _patch_pairs(image: Int[np.ndarray, "rows patches"]) -> int:
    """Number of pairs of vision patches of the same image. `image` is the image number of each patch, 0 for padding."""
    return sum(int((image == number).sum()) ** 2 for number in set(image.reshape(-1).tolist()) - {0})
