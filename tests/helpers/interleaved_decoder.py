"""Slow reference of the decoder: one sequence, token by token, each with its expert's weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from uno_jax.models.config import DecoderConfig

Matrix = np.ndarray


def _norm(x: Matrix, scale: Matrix, epsilon: float) -> Matrix:
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + epsilon) * scale


def _rotate(x: Matrix, position: int, theta: float) -> Matrix:
    """Rotates `x`, `[heads, head_dim]`: features k and k + head_dim / 2 by the angle position * theta^(-2k/d)."""
    half = x.shape[-1] // 2
    angle = position * theta ** (-np.arange(half) / half)
    first, second = x[:, :half], x[:, half:]
    return np.concatenate(
        [first * np.cos(angle) - second * np.sin(angle), second * np.cos(angle) + first * np.sin(angle)], axis=-1
    )


def interleaved_decoder(
    params: Any, config: DecoderConfig, x: Matrix, experts: list[str], positions: list[int], mask: Matrix
) -> Matrix:
    """Returns the final normed states of a sequence, float64 `[tokens, features]`.

    Args:
      params: the decoder's parameter tree.
      config: its sizes.
      x: input of the first layer, `[tokens, features]`.
      experts: `understanding` or `generation`, for each token.
      positions: RoPE position of each token.
      mask: bool `[tokens, tokens]`, True where the row's token attends to the column's.
    """
    x = np.asarray(x, np.float64)
    group = config.num_heads // config.num_kv_heads
    for layer in range(config.num_layers):

        def weights(token: int, *path: str, layer: int = layer) -> Matrix:
            leaf = params["layers"][experts[token]]
            for name in path:
                leaf = leaf[name]
            return np.asarray(leaf[layer], np.float64)

        def head(token: int, name: str, y: Matrix) -> Matrix:
            flat = y @ weights(token, name, "kernel") + weights(token, name, "bias")
            return flat.reshape(-1, config.head_dim)

        query, key, value = [], [], []
        for i, token in enumerate(x):
            y = _norm(token, weights(i, "attention_norm", "scale"), config.norm_eps)
            for name, heads in (("query", query), ("key", key)):
                normed = _norm(head(i, name, y), weights(i, f"{name}_norm", "scale"), config.norm_eps)
                heads.append(_rotate(normed, positions[i], config.rope_theta))
            value.append(head(i, "value", y))
        after = []
        for i, token in enumerate(x):
            seen = np.flatnonzero(mask[i])
            attended = []
            for h in range(config.num_heads):
                scores = np.array([query[i][h] @ key[j][h // group] for j in seen]) / np.sqrt(config.head_dim)
                share = np.exp(scores - scores.max())
                attended.append(sum(p * value[j][h // group] for p, j in zip(share / share.sum(), seen, strict=True)))
            token = token + np.concatenate(attended) @ weights(i, "output", "kernel")
            y = _norm(token, weights(i, "mlp_norm", "scale"), config.norm_eps)
            gate = y @ weights(i, "gate", "kernel")
            hidden = gate / (1 + np.exp(-gate)) * (y @ weights(i, "up", "kernel"))
            after.append(token + hidden @ weights(i, "down", "kernel"))
        x = np.stack(after)
    scales = [np.asarray(params["norm"][expert]["scale"], np.float64) for expert in experts]
    return _norm(x, np.stack(scales), config.norm_eps)
