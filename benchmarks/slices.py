"""Checks the requirements on the configs in configs/tpu with the TPU compiler. No TPU, a few minutes per slice.

    python benchmarks/slices.py [v5e_16 v5e_8 ...]
    python benchmarks/slices.py --task=editing [v5e_16 ...]

Runs `python -m uno_jax.aot` for each slice. Prints the tables of docs/tpu.md row by row (with --json, the full
estimates as JSON lines), and unmet requirements to stderr. The exit status is the number of unmet requirements. The
requirements on v5e_256 and v5e_512 relative to v5e_16 are checked if v5e_16 is listed before them.

There are no requirements on edits. If edits do not fit, these changes are tried in turn: full rematerialisation, half
the rows, and layer inputs in host memory.
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
"""Topology and required values of the estimate, by config."""

MAX_FLOPS_RATIO = {"v5e_16": 1.45, "v5e_16_offload": 1.45, "v5p_16": 1.12}

COLUMNS = (
    "config",
    "images per chip",
    "rematerialisation",
    "memory per chip, GiB",
    "executed / model FLOPs",
    "roofline s per step",
    "bound by",
    "images/s at 60% of it",
    "hours for 5,000 steps",
)


def estimate(name: str, task: str, overrides: Sequence[str] = ()) -> Estimate:
    """Returns the JSON object of `aot` for a config. `overrides` are additional arguments."""
    command = [
        *(sys.executable, "-m", "uno_jax.aot", f"--config=configs/tpu/{name}.py"),
        *(f"--topology={SLICES[name][0]}", f"--task={task}", "--json", *overrides),
    ]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def edits_that_fit(name: str) -> Estimate:
    """Returns the first estimate of edits that fits, or the last one that was tried."""
    result, overrides = estimate(name, "editing"), {}
    while not result["fits"] and (change := less_memory(result)):
        print(f"{name}: {result['hbm_peak_gib']:.2f} GiB do not fit, trying {change}", file=sys.stderr, flush=True)
        overrides |= change
        result = estimate(name, "editing", [f"--config.{field}={value}" for field, value in overrides.items()])
    return result


def less_memory(result: Estimate) -> dict[str, Any]:
    """Returns the next overrides to save memory, or nothing if none are left."""
    rows = result["rows_per_step"]
    if result["remat"] not in ("full", "offload"):
        return {"model.decoder.remat": "full"}
    if rows > result["mesh"]["data"] * result["mesh"]["fsdp"]:
        return {"data.rows": rows // 2, "data.virtual_shards": rows // 2}
    return {"model.decoder.remat": "offload"} if result["remat"] == "full" else {}


def table_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def cells(name: str, result: Estimate) -> list[str]:
    """Returns the cells of one row of the table, in the order of `COLUMNS`."""
    memory = f"{result['hbm_peak_gib']:.2f} of {result['hbm_capacity_gib']:.2f}"
    # With activations in host memory the peak is an upper bound.
    memory = f"at most {memory}" if result["remat"] == "offload" and result["fits"] else memory
    first = [f"`{name}`", f"{result['images_per_chip']:g}", result["remat"]]
    if not result["fits"]:
        return [*first, f"{memory}: does not fit", f"{result['flops_ratio']:.2f}", *["-"] * 4]
    speed = result["images_per_second"]
    return [
        *(*first, memory, f"{result['flops_ratio']:.2f}", f"{result['roofline_seconds']:.2f}", result["bound_by"]),
        *(f"{speed:.3g}", f"{result['hours']:.1f}"),
    ]


def requirements(name: str, estimates: Mapping[str, Estimate]) -> dict[str, bool]:
    """Returns the requirements on a slice's estimate, and whether each is met."""
    result = estimates[name]
    met = {"fits": result["fits"], "encoders under 5%": result["encoder_share"] < 0.05}
    met |= {f"{field} is {value}": result[field] == value for field, value in SLICES[name][1].items()}
    if name in MAX_FLOPS_RATIO:
        met[f"executed / model FLOPs at most {MAX_FLOPS_RATIO[name]}"] = result["flops_ratio"] <= MAX_FLOPS_RATIO[name]
    if name in ("v5e_256", "v5e_512") and "v5e_16" in estimates:
        small = estimates["v5e_16"]
        met["memory at most that of v5e_16"] = result["hbm_peak_gib"] <= small["hbm_peak_gib"]
        met["collectives within a slice within 10% of v5e_16"] = abs(in_slice(result) / in_slice(small) - 1) <= 0.1
    if name == "v5e_512":
        met["only all-reduce between slices"] = set(between_slices(result)) == {"all-reduce"}
        # Metaqueries and biases are not sharded, and odd lengths are padded.
        ratio = sum(between_slices(result).values()) / min_between_slices(result)
        met["traffic between slices is about a chip's shard of the gradients"] = 1 <= ratio <= 1.25
    return met


def in_slice(result: Estimate) -> float:
    """Bytes received by a chip from chips of the same slice."""
    return sum(size for axes, size in result["collective_bytes_per_chip"].items() if not axes.endswith(ACROSS))


def between_slices(result: Estimate) -> dict[str, float]:
    """Bytes received by a chip from other slices, by kind of collective."""
    total: dict[str, float] = {}
    for axes, kinds in result["collective_bytes_by_kind"].items():
        for kind, size in kinds.items() if axes.endswith(ACROSS) else ():
            total[kind] = total.get(kind, 0.0) + size
    return total


def min_between_slices(result: Estimate) -> float:
    """Bytes of a chip's shard of the bfloat16 gradients, after a reduce-scatter over all chips of the slice."""
    chips_with_all = result["mesh"]["fsdp"] * result["mesh"]["sequence"] * result["mesh"]["tensor"]
    elements = result["hbm_state_gib"]["gradients"] * 2**30 / 4 * chips_with_all
    return 2 * elements / (result["chips"] / result["slices"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="config", help=f"some of {', '.join(SLICES)} (default: all)")
    parser.add_argument("--task", choices=["text_to_image", "editing"], default="text_to_image")
    parser.add_argument("--json", action="store_true", help="print JSON lines: config, requirements, estimate")
    arguments = parser.parse_args()
    names = arguments.names or list(SLICES)
    if unknown := [name for name in names if name not in SLICES]:
        parser.error(f"unknown config {', '.join(unknown)}: expected some of {', '.join(SLICES)}")
    if not arguments.json:
        print(table_row(COLUMNS), table_row(["---"] * len(COLUMNS)), sep="\n", flush=True)
    estimates: dict[str, Estimate] = {}
    unmet = 0
    for name in names:
        if arguments.task == "editing":
            estimates[name], met = edits_that_fit(name), {}
        else:
            estimates[name] = estimate(name, arguments.task)
            met = requirements(name, estimates)
        if arguments.json:
            print(json.dumps({"config": name, "requirements": met, "estimate": estimates[name]}), flush=True)
        else:
            print(table_row(cells(name, estimates[name])), flush=True)
        for requirement in (requirement for requirement, fulfilled in met.items() if not fulfilled):
            unmet += 1
            print(f"{name}: NOT MET: {requirement}", file=sys.stderr, flush=True)
    sys.exit(unmet)


if __name__ == "__main__":
    main()
