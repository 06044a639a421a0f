"""Speed of linear layers on a CPU with and without flattened tokens: forward and backward pass of gated MLPs.

    python benchmarks/token_product.py [--rows=8 --tokens=192 --features=192 --mlp=512]

Prints one JSON line: seconds with (`flat`) and without (`as_is`) flattening, and their median ratio.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp

sys.path.append(str(Path(__file__).parent.parent))  # for a script only its own folder is on the path

from uno_jax.models.linear import token_product

LAYERS, ROUNDS = 4, 9


def compiled(product: Callable, weights: tuple, x: jax.Array) -> Callable:
    """Compiles the forward and backward pass of `LAYERS` gated MLPs."""

    def loss(weights: tuple, x: jax.Array) -> jax.Array:
        for gate, up, down in weights:
            x = x + product(jax.nn.silu(product(x, gate)) * product(x, up), down)
        return jnp.sum(x * x)

    return jax.jit(jax.value_and_grad(loss)).lower(weights, x).compile()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("rows", 8), ("tokens", 192), ("features", 192), ("mlp", 512)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    keys = jax.random.split(jax.random.key(0), 4)
    shapes = ((args.features, args.mlp), (args.features, args.mlp), (args.mlp, args.features))
    layer = tuple(0.02 * jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=False))
    weights = (layer,) * LAYERS
    x = jax.random.normal(keys[3], (args.rows, args.tokens, args.features))
    programs = {
        "flat": compiled(lambda a, b: token_product(a, b), weights, x),
        "as_is": compiled(lambda a, b: a @ b, weights, x),
    }
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(ROUNDS):
        for name, program in programs.items():
            start = time.perf_counter()
            jax.block_until_ready(program(weights, x))
            seconds[name].append(time.perf_counter() - start)
    ratios = sorted(b / a for a, b in zip(seconds["flat"], seconds["as_is"], strict=True))
    print(json.dumps({"as_is_over_flat": ratios[ROUNDS // 2], **{k: min(v) for k, v in seconds.items()}}))


if __name__ == "__main__":
    main()
