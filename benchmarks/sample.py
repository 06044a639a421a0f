"""Speed of sampling on a CPU, on the `sample` workload of the PyTorch baseline program.

    python benchmarks/sample.py [--batch=4]

The workload is a prefill of 32 prompt tokens and 24 Euler steps of an image of 256 latent tokens. Every step runs with
and without the prompt, with guidance rescaled globally. Everything is float32, with the sizes of `train_step.py`. All
images of a batch are sampled together in one program.

Prints one JSON line with the baseline's keys (`torch` is null) and three more: `compile_seconds` (not part of the other
times), `default_allocator` and `jax`.
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

sys.path.append(str(Path(__file__).parent.parent))  # for a script only its own folder is on the path

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
    """Inputs of `batch` images with random prompts of `PROMPT` tokens, including two delimiters."""
    rng = np.random.default_rng(seed)
    tokenizer: Any = SimpleNamespace(start=4092, end=4093, image_start=4094, image_end=4095)
    layout = Layout(pixels_per_token=model.pixels_per_token, max_latent_size=GRID)
    side = GRID * model.pixels_per_token
    prompts = rng.integers(4092, size=(batch, PROMPT - 2))
    plans = [guided_plan((Text(ids=tuple(ids)),), side, side, seed=i) for i, ids in enumerate(prompts)]
    return picture_inputs(plans, layout, tokenizer)


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=1, help="number of images in a batch")
    parser.add_argument("--repeat", type=int, default=7, help="number of timed runs")
    parser.add_argument("--warmup", type=int, default=2, help="number of runs before the timed ones")
    parser.add_argument("--threads", type=int, default=2, help="size of XLA's thread pool")
    parser.add_argument("--seed", type=int, default=0, help="seed of parameters, prompts and noise")
    parser.add_argument(
        "--default_allocator", action="store_true", help="return freed memory to the system after every run"
    )
    return parser


def report(args: argparse.Namespace, seconds: list[float], **measured: Any) -> dict[str, Any]:
    """Returns the printed object. `seconds` are the times of the runs after the warmup."""
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
    os.environ["NPROC"] = str(args.threads)  # XLA reads its pool size here when the first array is created
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
