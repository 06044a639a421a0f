"""What the configs of configs/tpu promise, checked with the TPU compiler: no TPU, a few minutes a slice.

    python benchmarks/slices.py [v5e_16 v5e_8 ...]
    python benchmarks/slices.py --task=editing [v5e_16 ...]

Each slice is planned in a process of its own (`python -m uno_jax.aot`). Prints a table with what those of docs/tpu.md
say, each row as soon as it is known (or, with --json, a line with the whole plan); on stderr, what a slice promised and
did not keep. The exit status is the number of promises that were not kept. What v5e_256 and v5e_512 promise against
v5e_16 is checked where v5e_16 is named before them.

No config promises anything about edits: where they do not fit, all of a layer is computed again, then rows are halved,
then layer inputs wait in the hosts' memory, until they fit.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

Estimate = Mapping[str, Any]
ACROSS = " across slices"

SLICES = {
    "v5e_16": ("v5e:4x4", {"images_per_chip": 2, "ema": True, "moment_dtype": "float32"}),
    "v5e_16_offload": ("v5e:4x4", {"images_per_chip": 4, "ema": True, "moment_dtype": "float32"}),
    "v5e_8": ("v5e:2x4", {"images_per_chip": 1, "ema": True}),
    "v5e_4": ("v5e:2x2", {"images_per_chip": 1, "ema": True}),
    "v6e_1": ("v6e:1x1", {"images_per_chip": 1, "ema": True}),
    "v5p_16": ("v5p:2x2x2", {"images_per_chip": 4, "ema": True}),
    "v5e_256": ("v5e:16x16", {"images_per_chip": 2, "ema": True}),
    "v5e_512": ("2xv5e:16x16", {"images_per_chip": 2, "ema": True}),
}
"""Config, topology, and what the plan has to say besides that it fits."""

LARGEST_RATIO = {"v5e_16": 1.45, "v5e_16_offload": 1.45, "v5p_16": 1.12}

COLUMNS = (
    "config",
    "pictures a chip",
    "rematerialisation",
    "memory of a chip, GiB",
    "executed / model FLOPs",
    "roofline s a step",
    "bound by",
    "pictures/s at 60% of it",
    "hours of 5,000 steps",
)


def estimate(name: str, task: str, overrides: Sequence[str] = ()) -> Estimate:
    """What `aot` says of a config; `overrides` are further arguments."""
    command = [
        *(sys.executable, "-m", "uno_jax.aot", f"--config=configs/tpu/{name}.py"),
        *(f"--topology={SLICES[name][0]}", f"--task={task}", "--json", *overrides),
    ]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def edits_that_fit(name: str) -> Estimate:
    """The plan of edits that was the first to fit, or the last that was tried."""
    made, overrides = estimate(name, "editing"), {}
    while not made["fits"] and (change := easier(made)):
        print(f"{name}: {made['hbm_peak_gib']:.2f} GiB do not fit, trying {change}", file=sys.stderr, flush=True)
        overrides |= change
        made = estimate(name, "editing", [f"--config.{field}={value}" for field, value in overrides.items()])
    return made


def easier(made: Estimate) -> dict[str, Any]:
    """What to change so that a plan takes less memory; nothing where there is nothing left to try."""
    rows = made["rows_per_step"]
    if made["remat"] not in ("full", "offload"):
        return {"model.decoder.remat": "full"}
    if rows > made["mesh"]["data"] * made["mesh"]["fsdp"]:
        return {"data.rows": rows // 2, "data.virtual_shards": rows // 2}
    return {"model.decoder.remat": "offload"} if made["remat"] == "full" else {}


def table_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def cells(name: str, made: Estimate) -> list[str]:
    """One row of the table: what of `COLUMNS` is known of the plan."""
    memory = f"{made['hbm_peak_gib']:.2f} of {made['hbm_capacity_gib']:.2f}"
    # Where activations wait in the hosts' memory the peak is an upper bound.
    memory = f"at most {memory}" if made["remat"] == "offload" and made["fits"] else memory
    first = [f"`{name}`", f"{made['images_per_chip']:g}", made["remat"]]
    if not made["fits"]:
        return [*first, f"{memory}: does not fit", f"{made['flops_ratio']:.2f}", *["-"] * 4]
    speed = made["images_per_second"]
    return [
        *(*first, memory, f"{made['flops_ratio']:.2f}", f"{made['roofline_seconds']:.2f}", made["bound_by"]),
        *(f"{speed:.3g}", f"{made['hours']:.1f}"),
    ]


def promises(name: str, estimates: Mapping[str, Estimate]) -> dict[str, bool]:
    """What had to hold of a slice's plan, and whether it does."""
    made = estimates[name]
    kept = {"fits": made["fits"], "encoders under 5%": made["encoder_share"] < 0.05}
    kept |= {f"{field} is {value}": made[field] == value for field, value in SLICES[name][1].items()}
    if name in LARGEST_RATIO:
        kept[f"executed / model FLOPs at most {LARGEST_RATIO[name]}"] = made["flops_ratio"] <= LARGEST_RATIO[name]
    if name in ("v5e_256", "v5e_512") and "v5e_16" in estimates:
        small = estimates["v5e_16"]
        kept["memory no larger than on v5e-16"] = made["hbm_peak_gib"] <= small["hbm_peak_gib"]
        kept["collectives in a slice within 10% of v5e-16"] = abs(in_slice(made) / in_slice(small) - 1) <= 0.1
    if name == "v5e_512":
        kept["between slices sums only"] = set(between_slices(made)) == {"all-reduce"}
        # Metaqueries and biases are reduced as they are, and windows of odd lengths are padded.
        ratio = sum(between_slices(made).values()) / least_between_slices(made)
        kept["between slices about a chip's part of the gradients"] = 1 <= ratio <= 1.25
    return kept


def in_slice(made: Estimate) -> float:
    """Bytes that a chip receives from others of its slice."""
    return sum(size for axes, size in made["collective_bytes_per_chip"].items() if not axes.endswith(ACROSS))


def between_slices(made: Estimate) -> dict[str, float]:
    """Bytes that a chip receives from other slices, by kind of collective."""
    total: dict[str, float] = {}
    for axes, kinds in made["collective_bytes_by_kind"].items():
        for kind, size in kinds.items() if axes.endswith(ACROSS) else ():
            total[kind] = total.get(kind, 0.0) + size
    return total


def least_between_slices(made: Estimate) -> float:
    """Bytes of a chip's part of the gradients in bfloat16, when all chips of a slice have summed them up."""
    chips_with_all = made["mesh"]["fsdp"] * made["mesh"]["sequence"] * made["mesh"]["tensor"]
    elements = made["hbm_state_gib"]["gradients"] * 2**30 / 4 * chips_with_all
    return 2 * elements / (made["chips"] / made["slices"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="config", help=f"of {', '.join(SLICES)}; default: all")
    parser.add_argument("--task", choices=["text_to_image", "editing"], default="text_to_image")
    parser.add_argument("--json", action="store_true", help="one JSON object a line: config, promises, plan")
    arguments = parser.parse_args()
    names = arguments.names or list(SLICES)
    if unknown := [name for name in names if name not in SLICES]:
        parser.error(f"no config {', '.join(unknown)}: there are {', '.join(SLICES)}")
    if not arguments.json:
        print(table_row(COLUMNS), table_row(["---"] * len(COLUMNS)), sep="\n", flush=True)
    estimates: dict[str, Estimate] = {}
    broken = 0
    for name in names:
        if arguments.task == "editing":
            estimates[name], kept = edits_that_fit(name), {}
        else:
            estimates[name] = estimate(name, arguments.task)
            kept = promises(name, estimates)
        if arguments.json:
            print(json.dumps({"config": name, "promises": kept, "plan": estimates[name]}), flush=True)
        else:
            print(table_row(cells(name, estimates[name])), flush=True)
        for promise in (promise for promise, held in kept.items() if not held):
            broken += 1
            print(f"{name}: NOT KEPT: {promise}", file=sys.stderr, flush=True)
    sys.exit(broken)


if __name__ == "__main__":
    main()
