"""What the configs of configs/tpu promise, checked with the TPU compiler: no TPU, a few minutes a slice.

    python benchmarks/slices.py [v5e_16 v5e_8 ...]

Each slice is planned in a process of its own (`python -m uno_jax.aot`). Prints one JSON line a slice, with what it had
to hold and whether it did; the exit status is the number of promises that were not kept.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

Plan = Mapping[str, Any]
ACROSS = " across slices"

SLICES = {
    "v5e_16": ("v5e:4x4", {"images_per_chip": 2, "ema": True, "moment_dtype": "float32"}),
    "v5e_16_offload": ("v5e:4x4", {"images_per_chip": 4, "ema": True, "moment_dtype": "float32"}),
    "v5e_8": ("v5e:2x4", {"images_per_chip": 1}),
    "v5e_4": ("v5e:2x2", {"images_per_chip": 1}),
    "v6e_1": ("v6e:1x1", {"images_per_chip": 1}),
    "v5p_16": ("v5p:2x2x2", {"images_per_chip": 4, "ema": True}),
    "v5e_256": ("v5e:16x16", {"images_per_chip": 2, "ema": True}),
    "v5e_512": ("2xv5e:16x16", {"images_per_chip": 2, "ema": True}),
}
"""Config, topology, and what the plan has to say besides that it fits."""

LARGEST_RATIO = {"v5e_16": 1.45, "v5e_16_offload": 1.45, "v5p_16": 1.12}


def plan(name: str, topology: str) -> Plan:
    command = [
        sys.executable,
        "-m",
        "uno_jax.aot",
        f"--config=configs/tpu/{name}.py",
        f"--topology={topology}",
        "--json",
    ]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def promises(name: str, plans: Mapping[str, Plan]) -> dict[str, bool]:
    """What had to hold of a slice's plan, and whether it does."""
    made = plans[name]
    kept = {"fits": made["fits"], "encoders under 5%": made["encoder_share"] < 0.05}
    kept |= {f"{field} is {value}": made[field] == value for field, value in SLICES[name][1].items()}
    if name in LARGEST_RATIO:
        kept[f"executed / model FLOPs at most {LARGEST_RATIO[name]}"] = made["flops_ratio"] <= LARGEST_RATIO[name]
    if name in ("v5e_256", "v5e_512") and "v5e_16" in plans:
        small = plans["v5e_16"]
        kept["memory no larger than on v5e-16"] = made["hbm_peak_gib"] <= small["hbm_peak_gib"]
        kept["collectives in a slice within 10% of v5e-16"] = abs(in_slice(made) / in_slice(small) - 1) <= 0.1
    if name == "v5e_512":
        kept["between slices sums only"] = set(between_slices(made)) == {"all-reduce"}
        # Metaqueries and biases are reduced as they are, and windows of odd lengths are padded.
        ratio = sum(between_slices(made).values()) / least_between_slices(made)
        kept["between slices about a chip's part of the gradients"] = 1 <= ratio <= 1.25
    return kept


def in_slice(made: Plan) -> float:
    """Bytes that a chip receives from others of its slice."""
    return sum(size for axes, size in made["collective_bytes_per_chip"].items() if not axes.endswith(ACROSS))


def between_slices(made: Plan) -> dict[str, float]:
    """Bytes that a chip receives from other slices, by kind of collective."""
    total: dict[str, float] = {}
    for axes, kinds in made["collective_bytes_by_kind"].items():
        for kind, size in kinds.items() if axes.endswith(ACROSS) else ():
            total[kind] = total.get(kind, 0.0) + size
    return total


def least_between_slices(made: Plan) -> float:
    """Bytes of a chip's part of the gradients in bfloat16, when all chips of a slice have summed them up."""
    chips_with_all = made["mesh"]["fsdp"] * made["mesh"]["sequence"] * made["mesh"]["tensor"]
    elements = made["hbm_state_gib"]["gradients"] * 2**30 / 4 * chips_with_all
    return 2 * elements / (made["chips"] / made["slices"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(SLICES), help="configs; default: all")
    plans: dict[str, Plan] = {}
    broken = 0
    for name in parser.parse_args().names:
        plans[name] = plan(name, SLICES[name][0])
        kept = promises(name, plans)
        broken += sum(not held for held in kept.values())
        print(json.dumps({"config": name, "promises": kept, "plan": plans[name]}), flush=True)
    sys.exit(broken)


if __name__ == "__main__":
    main()
