"""CPU speed of sampling, on the `sample` workload of the PyTorch baseline program.

    python benchmarks/sample.py [--batch=4]

A prompt of 32 tokens is read, then 24 Euler steps of a picture of 256 latent tokens, each with and without the prompt;
rescaled over the whole picture. Float32, sizes as in `train_step.py`. Pictures of a batch run together, in one program.
Prints one JSON line, with the keys of the baseline's (`torch` is null here) and three of its own: `compile_seconds`,
which are not part of the other seconds, `default_allocator` and `jax`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

sys.path.append(str(Path(__file__).parent.parent))  # a script finds its neighbours, and not the repository

from train_step import GRID, LATENTS, benchmark_batch, benchmark_config, init

from uno_jax.batch import Layout
from uno_jax.data.plans import Text
from uno_jax.inference.picture_inputs import PictureInputs, guided_plan, picture_inputs, read_branches
from uno_jax.models.config import ModelConfig
from uno_jax.process.memory import keep_freed_memory
from uno_jax.sampling.flow import sample_latents
from uno_jax.sampling.guidance import GuidanceConfig
from uno_jax.sampling.schedule import FlowConfig, forward_passes, make_schedule

PROMPT = 32
FLOW = FlowConfig(25, 3.0, GuidanceConfig(4.0, image_scale=1.0, interval=(0.0, 1.0)))


def workload(batch: int, model: ModelConfig, seed: int) -> PictureInputs:
    """As many prompts of random tokens, their two delimiters included."""
    rng = np.random.default_rng(seed)
    tokenizer: Any = SimpleNamespace(start=4092, end=4093, image_start=4094, image_end=4095)
    layout = Layout(pixels_per_token=model.pixels_per_token, max_latent_size=GRID)
    side = GRID * model.pixels_per_token
    prompts = rng.integers(4092, size=(batch, PROMPT - 2))
    plans = [guided_plan((Text(ids=tuple(ids)),), side, side, seed=i) for i, ids in enumerate(prompts)]
    return picture_inputs(plans, layout, tokenizer)


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=1, help="pictures, all at once")
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2, help="of XLA's pool")
    parser.add_argument("--seed", type=int, default=0, help="of parameters, prompts and noise")
    parser.add_argument("--default_allocator", action="store_true", help="give freed memory back after every run")
    return parser


def report(args: argparse.Namespace, seconds: list[float], **measured: Any) -> dict[str, Any]:
    """The line that is printed; `seconds` are those of the runs after the warmup."""
    steps = FLOW.timesteps - 1
    passes = forward_passes(make_schedule(FLOW), branches=2)
    tokens = {"prompt": PROMPT, "latent": LATENTS, "delimiter": 2, "images": args.batch}
    tokens |= {"steps": steps, "passes_per_step": passes // steps}
    times = {"median_s": statistics.median(seconds), "min_s": min(seconds), "max_s": max(seconds)}
    versions = {"torch": None, "jax": jax.__version__}
    return {**measured, **times, "trainable": 0, "tokens": tokens, "mode": "sample", **vars(args), **versions}


def main() -> None:
    args = options().parse_args()
    if not args.default_allocator:
        keep_freed_memory()
    os.environ["NPROC"] = str(args.threads)  # where XLA looks for the size of its pool, when its first array is made
    config = benchmark_config(queries=0)
    model = config.model
    params = init(config, jax.tree.map(jnp.asarray, benchmark_batch(1, PROMPT, 0, 0)), args.seed)
    inputs = jax.tree.map(jnp.asarray, workload(args.batch, model, args.seed))

    @jax.jit
    def sample(params: Any, inputs: PictureInputs) -> jax.Array:
        no_latents = jnp.zeros((args.batch, 0, model.latent_size))
        branches = read_branches(params, inputs, no_latents, model)
        return jnp.mean(jnp.square(sample_latents(params, branches, model, FLOW, args.seed)))

    start = time.perf_counter()
    compiled = sample.lower(params, inputs).compile()
    compile_seconds = time.perf_counter() - start
    seconds = []
    for _ in range(args.warmup + args.repeat):
        start = time.perf_counter()
        result = jax.block_until_ready(compiled(params, inputs))
        seconds.append(time.perf_counter() - start)
    parameters = sum(x.size for x in jax.tree.leaves(params))
    measured = {"compile_seconds": compile_seconds, "parameters": parameters, "result": float(result)}
    print(json.dumps(report(args, seconds[args.warmup :], **measured)))


if __name__ == "__main__":
    main()
