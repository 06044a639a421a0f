"""Speed of the options for faster sampling, and how much they change the images.

    python benchmarks/sample_options.py --checkpoint=runs/long/uno --data=data/openmoji

Generates images of held-out prompts with every option, from the same noise. The baseline is Euler with every branch at
every step. Differences are root mean squares over the colour values (0 to 255) of all images, also in dB (PSNR). They
are relative to the baseline with many steps and to the baseline with `--timesteps`. The last line is the difference
between two seeds.

Prints a table, or with `--json` one JSON line per option.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import math
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

sys.path.append(str(Path(__file__).parent.parent))  # for a script only its own folder is on the path

from uno_jax.batch import TASKS
from uno_jax.data.plans import Text
from uno_jax.data.records import open_records, record_tasks
from uno_jax.inference.picture_inputs import PictureInputs, guided_plan, picture_inputs, read_branches
from uno_jax.interop.load import LoadedModel, load_model
from uno_jax.models.config import layout_of
from uno_jax.process.memory import keep_freed_memory
from uno_jax.sampling.decode import decode_pictures
from uno_jax.sampling.flow import sample_latents
from uno_jax.sampling.guidance import GuidanceConfig
from uno_jax.sampling.schedule import FlowConfig, forward_passes, make_schedule


def options(plain: FlowConfig) -> dict[str, FlowConfig]:
    """Returns the settings by name: the baseline, each option alone, then some combinations."""
    change = functools.partial(dataclasses.replace, plain)
    half, quarter = (plain.timesteps + 1) // 2, (plain.timesteps + 3) // 4

    def within(low: float) -> GuidanceConfig:
        return dataclasses.replace(plain.guidance, interval=(low, 1.0))

    return {
        "plain": plain,
        "interval 0.4 to 1": change(guidance=within(0.4)),
        "interval 0.7 to 1": change(guidance=within(0.7)),
        "solver_order 2": change(solver_order=2),
        "refresh_every 2, feature_order 0": change(refresh_every=2, feature_order=0),
        "refresh_every 2, feature_order 1": change(refresh_every=2),
        "refresh_every 3, feature_order 0": change(refresh_every=3, feature_order=0),
        "refresh_every 3, feature_order 1": change(refresh_every=3),
        "refresh_every 3, feature_order 2": change(refresh_every=3, feature_order=2),
        "refresh_every 5, feature_order 1": change(refresh_every=5),
        f"timesteps {half}": change(timesteps=half),
        f"timesteps {half}, solver_order 2": change(timesteps=half, solver_order=2),
        f"timesteps {quarter}": change(timesteps=quarter),
        f"timesteps {quarter}, solver_order 2": change(timesteps=quarter, solver_order=2),
        "interval 0.4 to 1, refresh_every 3": change(guidance=within(0.4), refresh_every=3),
        f"interval 0.4 to 1, timesteps {half}, solver_order 2": change(
            guidance=within(0.4), timesteps=half, solver_order=2
        ),
    }


def workload(model: LoadedModel, data: str, pictures: int, seed: int) -> PictureInputs:
    """Inputs of square images of the maximum size, for evenly spaced held-out prompts with a seed each."""
    prompts = np.flatnonzero(record_tasks(data, "test") == TASKS.index("text_to_image"))
    records = open_records(data, "test")
    chosen = [records[int(prompts[at])].prompt for at in np.linspace(0, len(prompts) - 1, pictures).round().astype(int)]
    config = model.config
    side = config.pixels_per_token * config.max_latent_size
    plans = [
        guided_plan((Text(ids=tuple(model.tokenizer.encode(prompt))),), side, side, seed=seed + i)
        for i, prompt in enumerate(chosen)
    ]
    return picture_inputs(plans, layout_of(config), model.tokenizer)


@functools.partial(jax.jit, static_argnames=("model", "config"))
def sample(params: Any, inputs: PictureInputs, *, model: Any, config: FlowConfig) -> jax.Array:
    no_latents = jnp.zeros((*inputs.context.latent_index.shape, model.latent_size))
    return sample_latents(params, read_branches(params, inputs, no_latents, model), model, config)


def generate(model: LoadedModel, inputs: PictureInputs, config: FlowConfig) -> np.ndarray:
    """Generates images, uint8 `[images, height, width, 3]`."""
    latents = np.asarray(sample(model.params, inputs, model=model.config, config=config))
    grids = [(model.config.max_latent_size,) * 2] * len(latents)
    decoded = decode_pictures(model.autoencoder, model.autoencoder_params, list(latents), grids, model.config)
    return np.stack(decoded)


def difference(first: np.ndarray, second: np.ndarray) -> float:
    """Root mean square of the difference of all colour values."""
    return float(np.sqrt(np.mean(np.square(first.astype(np.float64) - second))))


def measure(model: LoadedModel, inputs: PictureInputs, configs: Sequence[FlowConfig], repeat: int) -> list[float]:
    """Median seconds of each config, with prefill and without decoding.

    The configs run in turn, so that disturbances of the machine affect all of them equally.
    """
    seconds: list[list[float]] = [[] for _ in configs]
    for _ in range(repeat):
        for config, taken in zip(configs, seconds, strict=True):
            start = time.perf_counter()
            jax.block_until_ready(sample(model.params, inputs, model=model.config, config=config))
            taken.append(time.perf_counter() - start)
    return [statistics.median(taken) for taken in seconds]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, help="see python -m uno_jax.sample --help")
    parser.add_argument("--data", required=True, help="dataset directory; prompts are from the split `test`")
    parser.add_argument("--pictures", type=int, default=12, help="number of images, generated in one batch")
    parser.add_argument("--timesteps", type=int, default=FlowConfig.timesteps)
    parser.add_argument("--many", type=int, default=393, help="timesteps of the baseline with many steps")
    parser.add_argument("--text_scale", type=float, default=GuidanceConfig.text_scale)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    keep_freed_memory()
    model = load_model(args.checkpoint)
    inputs, others = (workload(model, args.data, args.pictures, seed) for seed in (0, args.pictures))
    guidance = GuidanceConfig(args.text_scale, interval=(0.0, 1.0))
    plain = FlowConfig(args.timesteps, model.time_shift, guidance)
    configs = options(plain)
    images = {name: generate(model, inputs, config) for name, config in configs.items()}
    finest = generate(model, inputs, dataclasses.replace(plain, timesteps=args.many))
    taken = measure(model, inputs, list(configs.values()), args.repeat)
    rows = [
        {
            "option": name,
            "passes": forward_passes(make_schedule(config), branches=2),
            "seconds_per_picture": seconds / args.pictures,
            "time": seconds / taken[0],
            "from_many_steps": difference(images[name], finest),
            "from_plain": difference(images[name], images["plain"]),
        }
        for (name, config), seconds in zip(configs.items(), taken, strict=True)
    ]
    another = difference(generate(model, others, plain), images["plain"])
    if args.json:
        for row in [*rows, {"option": "another seed", "from_plain": another}]:
            print(json.dumps(row))
        return
    print(f"{args.pictures} images of {model.origin}, {args.timesteps} timesteps, many steps: {args.many} timesteps\n")
    print("| option | passes | s per image | time | from many steps | from plain |\n|---|---|---|---|---|---|")
    for row in rows:
        cells = [row["option"], str(row["passes"]), f"{row['seconds_per_picture']:.3f}", f"{row['time']:.2f}"]
        print("|", " | ".join([*cells, *(as_text(row[name]) for name in ("from_many_steps", "from_plain"))]), "|")
    print(f"| another seed | | | | | {as_text(another)} |")


def as_text(rms: Any) -> str:
    return f"{rms:.1f} ({20 * math.log10(255 / rms):.1f} dB)" if rms else "0"


if __name__ == "__main__":
    main()
