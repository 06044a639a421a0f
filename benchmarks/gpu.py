"""Speed and memory on one GPU: sampling and UNO training at the published sizes, with random weights.

    python benchmarks/gpu.py                            every workload of PLAN, each in a process of its own
    python benchmarks/gpu.py --workload=sample --rows=4
    python benchmarks/gpu.py --workload=adapters --rows=2 --remat=dots
    python benchmarks/gpu.py --tiny                     tiny sizes, to try the program on CPUs

Needs JAX, Flax, optax, jaxtyping and ml_collections. Workloads, in bfloat16:

- `sample`: pictures of 1024 x 1024, 49 Euler steps on a time grid shifted by 3, a cache of 64 prompt tokens, guidance
  of scale 4 where 0.4 < t <= 1: 90 forward passes a picture. Prefill, vision encoder and autoencoder are not in it.
- `adapters`: a UNO step on adapters of rank 16 for rows of one picture of 1024 x 1024: 4096 latents, 256 text tokens,
  256 caption tokens, 256 metaqueries whose targets the vision encoder reads. Everything else is frozen.
- `expert`: a UNO step on the whole generation expert for rows of one picture of 512 x 512, with parameters and both
  moments in bfloat16. It is compiled, and run if the compiler's count of bytes fits.

Prints one JSON line per workload with the keys of a PyTorch program for the same samples (`torch` is null) and these:

- `compile_seconds`, which is part of no other time, and `second_compile_seconds`: the same after JAX's caches in memory
  have been cleared, so from the compilation cache on disk.
- `planned_gib`: the compiler's count. `peak_gib`: the allocator's; null on CPUs.
- `model_tflops`: 10^12 model FLOPs of all rows (docs/tpu.md says what counts), and `mfu`: their share of what the card
  can compute in `median_s`; null if the card is not known.

A table comes last.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

sys.path.append(str(Path(__file__).parent.parent))  # for a script only its own folder is on the path

from made_up_rows import block_after, made_up_rows

from uno_jax.attention.attend import Attention
from uno_jax.attention.metadata import TokenMetadata
from uno_jax.models.apart import arranged
from uno_jax.models.config import DecoderConfig, ModelConfig, Remat, VisionConfig
from uno_jax.models.decoder import KVCache
from uno_jax.objectives.config import ObjectiveConfig
from uno_jax.planning.example import Example, joined, visible_pairs
from uno_jax.planning.model_flops import forward_flops, model_flops
from uno_jax.sampling.flow import Branch, Branches, sample_latents
from uno_jax.sampling.guidance import GuidanceConfig
from uno_jax.sampling.schedule import FlowConfig, forward_passes, make_schedule
from uno_jax.training.initialise import abstract_params, cast_params
from uno_jax.training.optimizer import OptimizerConfig, make_optimizer
from uno_jax.training.state import ADAPTERS_TRAINABLE, UNO_TRAINABLE, create_state
from uno_jax.training.step import StepConfig, make_train_step

PLAN = (
    ("--workload=sample", "--rows=1"),
    ("--workload=sample", "--rows=4"),
    ("--workload=adapters", "--rows=1", "--remat=full"),
    ("--workload=adapters", "--rows=4", "--remat=full"),
    ("--workload=adapters", "--rows=4", "--remat=save_projections"),
    ("--workload=adapters", "--rows=2", "--remat=dots"),
    ("--workload=expert", "--rows=1", "--remat=full"),
)
"""Arguments of the processes that a run without `--workload` starts, one after the other."""

PEAK_TFLOPS = {"A100": 312, "H100 PCIe": 756, "H100": 989, "H200": 989, "B200": 2250, "L4": 121, "L40S": 362}
"""Dense bfloat16 peak by a part of the card's name. The longest part that the name has counts."""

COLUMNS = (
    "workload",
    "rows",
    "remat",
    "median_s",
    "first_s",
    "compile_seconds",
    "second_compile_seconds",
    "planned_gib",
)
COLUMNS += ("peak_gib", "model_tflops", "mfu", "problem")


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes of the workloads, in tokens unless stated otherwise."""

    model: ModelConfig
    side: int
    """Side of the sampled pictures and of those of `adapters`."""
    expert_side: int
    """Side of the pictures of `expert`."""
    prompt: int
    """Cached prompt tokens in sampling."""
    context: int
    """Text tokens in training, with the two delimiters of the image."""
    captions: int
    queries: int


FULL = Sizes(ModelConfig(num_metaqueries=256), 64, 32, 64, 256, 256, 256)
TINY = Sizes(
    ModelConfig(
        decoder=DecoderConfig(64, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=16, mlp_size=96, vocab_size=128),
        vision=VisionConfig(hidden_size=32, num_layers=2, num_heads=2, mlp_size=48, table_side=8),
        max_latent_size=16,
        num_metaqueries=16,
    ),
    side=12,
    expert_side=8,
    prompt=8,
    context=10,
    captions=8,
    queries=16,
)


class Workload(NamedTuple):
    """A program and what is known of it before it runs."""

    program: Callable[..., Any]
    """Jitted. Its first result replaces its first argument in the next run if `carries`."""
    arguments: tuple[Any, ...]
    """Shapes and dtypes."""
    make: Callable[[], tuple[Any, ...]]
    """Makes the arguments on the device."""
    model_flops: float
    passes: int
    """Forward passes of a picture, or 1."""
    carries: bool


def model_of(sizes: Sizes, args: argparse.Namespace, **decoder: Any) -> ModelConfig:
    """The model with the settings of the command line."""
    speed = {"attention": args.attention, "remat": args.remat, "scan_unroll": args.scan_unroll}
    changed = dataclasses.replace(sizes.model.decoder, **speed, **decoder)
    vision = dataclasses.replace(sizes.model.vision, attention=args.attention)
    return dataclasses.replace(sizes.model, decoder=changed, vision=vision, compute_dtype="bfloat16")


def random_params(shapes: Any) -> Any:
    """Random weights in the dtypes of `shapes`: scales are 1, biases 0, all else normal with deviation 0.02."""

    def leaf(path: Any, shape: jax.ShapeDtypeStruct, key: jax.Array) -> jax.Array:
        name = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)][-1]
        if name in ("scale", "bias"):
            return jnp.full(shape.shape, float(name == "scale"), shape.dtype)
        return jax.random.normal(key, shape.shape, shape.dtype) * jnp.asarray(0.02, shape.dtype)

    paths, tree = jax.tree.flatten_with_path(shapes)
    keys = jax.random.split(jax.random.key(0), len(paths))
    draw = jax.jit(leaf, static_argnums=(0, 1))
    return jax.tree.unflatten(tree, [draw(path, shape, key) for (path, shape), key in zip(paths, keys, strict=True)])


def sample_workload(args: argparse.Namespace, sizes: Sizes) -> Workload:
    """Pictures from noise, with and without the prompt."""
    model = model_of(sizes, args)
    flow = FlowConfig(args.steps, 3.0, GuidanceConfig(4.0, image_scale=1.0))
    params = arranged(cast_params(abstract_params(model), (), "bfloat16", "bfloat16"), model.decoder)
    decoder, none = model.decoder, {"captions": 0, "queries": 0}
    context, target = block_after(made_up_rows(model, args.rows, sizes.side, prompt=sizes.prompt, **none), sizes.prompt)
    no_context, alone = block_after(made_up_rows(model, args.rows, sizes.side, prompt=0, **none), 0)

    def cache(metadata: TokenMetadata) -> KVCache:
        shape = (decoder.num_layers, *metadata.sample.shape, decoder.num_kv_heads, decoder.head_dim)
        keys, values = jax.random.normal(jax.random.key(1), (2, *shape), jnp.bfloat16)
        return KVCache(keys, values, metadata)

    def branches() -> Branches:
        return jax.tree.map(jnp.asarray, Branches(Branch(cache(context), target), Branch(cache(no_context), alone)))

    def sample(params: Any, branches: Branches) -> jax.Array:
        return sample_latents(params, branches, model, flow)

    tokens = {"text": 2, "vit": 0, "caption": 0, "query": 0, "latent": sizes.side**2}
    blocks = [joined(x.understanding, x.generation) for x in (target, alone)]
    pairs = visible_pairs(blocks[0], joined(context, blocks[0])), visible_pairs(blocks[1], blocks[1])
    conditional, unconditional = (args.rows * forward_flops(params, tokens, n // args.rows, model) for n in pairs)
    passes = forward_passes(make_schedule(flow), branches=2)
    steps = flow.timesteps - 1
    return Workload(
        jax.jit(sample),
        (params, jax.eval_shape(branches)),
        lambda: (random_params(params), branches()),
        steps * conditional + (passes - steps) * unconditional,
        passes,
        carries=False,
    )


def train_workload(args: argparse.Namespace, sizes: Sizes) -> Workload:
    """A UNO step on adapters or on the whole generation expert."""
    adapters = args.workload == "adapters"
    model = model_of(sizes, args, adapter_rank=16 if adapters else 0)
    trainable = ADAPTERS_TRAINABLE if adapters else UNO_TRAINABLE
    dtype = "float32" if adapters else "bfloat16"
    optimizer = OptimizerConfig(moment_dtype=dtype)
    config = StepConfig(model, ObjectiveConfig(caption_weight=0.25, visual_weight=0.5), optimizer, steps=1000, seed=0)
    side = sizes.side if adapters else sizes.expert_side
    lengths = {"prompt": sizes.context - 2, "captions": sizes.captions, "queries": sizes.queries}
    batch = made_up_rows(model, args.rows, side, **lengths)
    params = arranged(cast_params(abstract_params(model), trainable, dtype, "bfloat16"), model.decoder)

    def state(params: Any) -> Any:
        return create_state(params, trainable, make_optimizer(optimizer, config.steps), ema=False)

    abstract = jax.eval_shape(state, params)
    row = Example(jax.tree.map(lambda x: x[:1], batch), images=1)
    flops = model_flops(abstract.trainable, abstract.frozen, row, model)
    return Workload(
        jax.jit(make_train_step(config), donate_argnums=0),
        (abstract, jax.eval_shape(lambda: jax.tree.map(jnp.asarray, batch))),
        # Donated, so that the parameters are not in memory twice.
        lambda: (jax.jit(state, donate_argnums=0)(random_params(params)), jax.tree.map(jnp.asarray, batch)),
        args.rows * sum(flops.values()),
        1,
        carries=True,
    )


def measure(workload: Workload, repeat: int) -> dict[str, Any]:
    """Compiles a workload twice, runs it, and returns what was measured."""
    device = jax.devices()[0]

    def compiled() -> tuple[jax.stages.Compiled, float]:
        start = time.perf_counter()
        program = workload.program.lower(*workload.arguments).compile()
        return program, time.perf_counter() - start

    program, seconds = compiled()
    jax.clear_caches()
    _, again = compiled()
    report: dict[str, Any] = {"compile_seconds": seconds, "second_compile_seconds": again}
    planned, limit = planned_bytes(program), (device.memory_stats() or {}).get("bytes_limit")
    report |= {"planned_gib": planned / 2**30, "model_tflops": workload.model_flops / 1e12, "passes": workload.passes}
    if limit and planned > limit:
        problem = f"needs {planned / 2**30:.1f} of {limit / 2**30:.1f} GiB: not run"
        return report | {"problem": problem}
    carried, *rest = workload.make()
    times = []
    for _ in range(repeat + 1):
        start = time.perf_counter()
        result = jax.block_until_ready(program(carried, *rest))
        times.append(time.perf_counter() - start)
        if workload.carries:
            carried, result = result[0], result[1]["loss"]
    finite = bool(np.isfinite(np.asarray(result)).all())
    times, first = sorted(times[1:]), times[0]
    median = statistics.median(times)
    peak = peak_flops(device.device_kind)
    stats = device.memory_stats()
    return report | {
        "first_s": first,
        "median_s": median,
        "min_s": times[0],
        "max_s": times[-1],
        "peak_gib": stats["peak_bytes_in_use"] / 2**30 if stats else None,
        "mfu": workload.model_flops / median / peak if peak else None,
        "problem": None if finite else "the result is not finite",
    }


def planned_bytes(program: jax.stages.Compiled) -> int:
    """Bytes of a program by the compiler's count: arguments, results that are no donated arguments, temporaries."""
    memory: Any = program.memory_analysis()
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return int(held + memory.temp_size_in_bytes)


def peak_flops(card: str) -> float | None:
    """Peak FLOP/s in bfloat16 of a card, by its name."""
    known = [part for part in PEAK_TFLOPS if part in card]
    return 1e12 * PEAK_TFLOPS[max(known, key=len)] if known else None


def table(reports: Sequence[dict[str, Any]]) -> str:
    """Markdown."""

    def cell(x: Any) -> str:
        return "-" if x is None else f"{x:.3g}" if isinstance(x, float) else str(x)

    lines = [COLUMNS, ["---"] * len(COLUMNS), *([cell(x.get(name)) for name in COLUMNS] for x in reports)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def run_plan(arguments: Sequence[str], minutes: float) -> list[dict[str, Any]]:
    """Runs each workload in a process of its own, because the peak of an allocator never falls."""
    reports, end = [], time.monotonic() + 60 * minutes
    for chosen in PLAN:
        command = [sys.executable, __file__, *chosen, *arguments]
        report: dict[str, Any] = dict(argument.removeprefix("--").split("=") for argument in chosen)
        try:
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=max(end - time.monotonic(), 1))
        except subprocess.TimeoutExpired:
            report["problem"] = f"stopped: {minutes:g} minutes are over"
        else:
            line = next((line for line in done.stdout.splitlines() if line.startswith("{")), None)
            report = json.loads(line) if line else report | {"problem": f"ended with status {done.returncode}"}
        print(json.dumps(report), flush=True)
        reports.append(report)
    return reports


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", choices=("sample", "adapters", "expert"), help="one workload, in this process")
    parser.add_argument("--rows", type=int, default=1, help="pictures in a batch")
    parser.add_argument("--remat", choices=get_args(Remat), default="none", help="rematerialisation in training")
    parser.add_argument("--attention", choices=get_args(Attention), default="auto", help="implementation of attention")
    parser.add_argument("--scan_unroll", type=int, default=1, help="layers of the decoder in an iteration of its loop")
    parser.add_argument("--steps", type=int, default=50, help="points of the time grid of a sampled picture")
    parser.add_argument("--repeat", type=int, default=2, help="timed runs after the first")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, to try the program on CPUs")
    parser.add_argument("--minutes", type=float, default=8.0, help="time for all workloads")
    parser.add_argument("--cache", type=Path, help="directory of the compilation cache (default: a temporary one)")
    return parser


def main() -> None:
    args = options().parse_args()
    if not args.workload:
        with tempfile.TemporaryDirectory() as folder:
            kept = ("attention", "scan_unroll", "steps", "repeat")
            passed = [f"--cache={args.cache or folder}", *(f"--{name}={getattr(args, name)}" for name in kept)]
            passed += ["--tiny"] if args.tiny else []
            print(f"\n{table(run_plan(passed, args.minutes))}")
        return
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.95")  # the default leaves a quarter of the card unused
    with tempfile.TemporaryDirectory() as folder:
        jax.config.update("jax_compilation_cache_dir", str(args.cache or folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        make = sample_workload if args.workload == "sample" else train_workload
        facts = {"workload": args.workload, "rows": args.rows, "remat": args.remat, "attention": args.attention}
        facts |= {"tiny": args.tiny, "scan_unroll": args.scan_unroll, "backend": jax.default_backend(), "compile": True}
        facts |= {"device": jax.devices()[0].device_kind, "torch": None, "jax": jax.__version__}
        try:
            measured = measure(make(args, TINY if args.tiny else FULL), args.repeat)
        except jax.errors.JaxRuntimeError as error:  # such as RESOURCE_EXHAUSTED
            measured = {"problem": str(error).splitlines()[0]}
        print(json.dumps(facts | measured))
        print(f"\n{table([facts | measured])}")


if __name__ == "__main__":
    main()
