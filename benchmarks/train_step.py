"""Speed of a train step on a CPU, on the workloads of the PyTorch baseline program.

    python benchmarks/train_step.py --workload=flow    forward and backward pass of the flow loss, all parameters
    python benchmarks/train_step.py --workload=uno     a full train step: three losses, clipping, AdamW

Everything is float32, with the baseline's sizes: hidden size 512, 6 layers, 8 heads of 64, 4 key-value heads, MLP 1408,
vocabulary 4096, 256 latent tokens per image. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

sys.path.append(str(Path(__file__).parent.parent))  # for a script only its own folder is on the path

from made_up_rows import made_up_rows

from uno_jax.batch import Batch
from uno_jax.models.apart import arranged
from uno_jax.models.config import AutoencoderConfig, DecoderConfig, ModelConfig, VisionConfig
from uno_jax.models.unified import UnifiedModel
from uno_jax.objectives.config import ObjectiveConfig
from uno_jax.objectives.losses import loss_counts, reduce_losses
from uno_jax.process.memory import keep_freed_memory
from uno_jax.training.optimizer import OptimizerConfig, make_optimizer
from uno_jax.training.state import UNO_TRAINABLE, create_state
from uno_jax.training.step import StepConfig, draw_for, losses_of, make_train_step

GRID, TARGET = 16, 384
LATENTS = GRID * GRID


def benchmark_config(queries: int) -> StepConfig:
    """Returns the baseline's sizes, with unrolled layers, which are faster on a CPU."""
    decoder = DecoderConfig(
        hidden_size=512, num_layers=6, num_heads=8, num_kv_heads=4, head_dim=64, mlp_size=1408, vocab_size=4096,
        scan_unroll=6,
    )  # fmt: skip
    model = ModelConfig(
        decoder=decoder,
        vision=VisionConfig(hidden_size=TARGET, table_side=GRID),
        autoencoder=AutoencoderConfig(),
        max_latent_size=GRID,
        num_metaqueries=queries,
    )
    objective = ObjectiveConfig(caption_weight=0.25, visual_weight=0.5)
    optimizer = OptimizerConfig(learning_rate=1e-4, beta2=0.999, epsilon=1e-8, weight_decay=0.01, clip_norm=1.0)
    return StepConfig(model, objective, optimizer, steps=1000, seed=0)


def benchmark_batch(rows: int, prompt: int, captions: int, queries: int) -> Batch:
    """A random batch with one sample per row: prompt, image block, caption, metaqueries.

    Vision features of the targets are precomputed.
    """
    model, sizes = benchmark_config(queries).model, {"prompt": prompt, "captions": captions, "queries": queries}
    return made_up_rows(model, rows, GRID, **sizes, pixels=False)


def init(config: StepConfig, batch: Batch, seed: int = 0) -> Any:
    """Randomly initialises the parameters that the workload uses (no vision encoder)."""
    x = jnp.zeros((*batch.latent_positions.shape, 64))
    model = UnifiedModel(config.model)
    params = jax.jit(lambda: model.init(jax.random.key(seed), batch, x, x[..., 0]))()["params"]
    return arranged(params, config.model.decoder)


def flow_workload() -> tuple[Callable, tuple, Any, Any, dict]:
    """Forward and backward pass of the flow loss with gradients of all parameters, without the optimizer."""
    config = benchmark_config(queries=0)
    batch = jax.tree.map(jnp.asarray, benchmark_batch(1, 64, 0, 0))
    params = init(config, batch)

    def step(params: Any, batch: Batch) -> tuple[Any, Any]:
        def loss(params: Any) -> jax.Array:
            draws = draw_for(batch, config)
            losses = losses_of(params, batch, draws, config)
            return reduce_losses({"flow": losses["flow"]}, loss_counts(batch), config.objective)["flow"]

        return jax.value_and_grad(loss)(params)

    tokens = {"text": 64, "latent": LATENTS, "delimiter": 2, "total": 64 + 2 + LATENTS}
    return jax.jit(step), (params, batch), params, params, tokens


def uno_workload() -> tuple[Callable, tuple, Any, Any, dict]:
    """A full train step on four samples, with a frozen understanding expert and donated state."""
    config = benchmark_config(queries=64)
    batch = jax.tree.map(jnp.asarray, benchmark_batch(4, 32, 32, 64))
    params = init(config, batch)
    state = create_state(params, UNO_TRAINABLE, make_optimizer(config.optimizer, config.steps), ema=False)
    step = jax.jit(make_train_step(config), donate_argnums=0)
    tokens = {"prompt": 32, "latent": LATENTS, "delimiter": 2, "caption": 32, "query": 64}
    tokens |= {"per_sample": 386, "samples": 4, "total": 4 * 386}
    return step, (state, batch), params, state.trainable, tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", choices=("flow", "uno"), required=True)
    parser.add_argument("--repeat", type=int, default=7, help="number of timed steps")
    parser.add_argument("--warmup", type=int, default=2, help="number of steps before the timed ones")
    parser.add_argument(
        "--default_allocator", action="store_true", help="return freed memory to the system after every step"
    )
    args = parser.parse_args()
    if not args.default_allocator:
        keep_freed_memory()  # like uno_jax.train
    step, (carried, batch), params, trainable, tokens = {"flow": flow_workload, "uno": uno_workload}[args.workload]()

    def count(tree: Any) -> int:
        return sum(x.size for x in jax.tree.leaves(tree))

    report = {"parameters": count(params), "trainable": count(trainable), "tokens": tokens}
    start = time.perf_counter()
    compiled = step.lower(carried, batch).compile()
    report["compile_seconds"] = time.perf_counter() - start
    seconds = []
    for _ in range(args.warmup + args.repeat):
        start = time.perf_counter()
        first, second = jax.block_until_ready(compiled(carried, batch))
        seconds.append(time.perf_counter() - start)
        if args.workload == "uno":
            carried, result = first, second["loss"]  # the old state was donated
        else:
            result = first
    seconds = seconds[args.warmup :]
    report |= {"median_s": statistics.median(seconds), "min_s": min(seconds), "max_s": max(seconds)}
    report |= {"result": float(result), "repeat": args.repeat, "warmup": args.warmup, "jax": jax.__version__}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
