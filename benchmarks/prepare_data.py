"""Measures `prepare_data` on made-up JPEG pictures of many sizes: records a CPU second, and bytes before and after.

    taskset -c 0 python benchmarks/prepare_data.py --folder=mix

The longest sides are from 200 to 3,000 pixels, spread evenly on a logarithmic scale, and the aspect ratios from 1:3 to
3:1. Other arguments are those of prepare_data, such as --max_side=1024. One process converts, so that CPU seconds are
those of one core; starting it is not counted.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.append(str(Path(__file__).parent.parent))  # for a script only its own folder is on the path

from uno_jax import prepare_data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where pictures and datasets go")
    parser.add_argument("--pictures", type=int, default=400)
    options, others = parser.parse_known_args()
    if not (options.folder / "records.jsonl").is_file():
        make_pictures(options.folder, options.pictures)
    out = options.folder / "dataset"
    shutil.rmtree(out, ignore_errors=True)
    source = [f"--jsonl={options.folder / 'records.jsonl'}", f"--images={options.folder / 'images'}"]
    began, wall = cpu_seconds(), time.monotonic()
    prepare_data.main(["--dataset=jsonl", *source, f"--out={out}", "--processes=1", *others])
    spent, passed = cpu_seconds() - began, time.monotonic() - wall
    lines = (options.folder / "records.jsonl").read_text().splitlines()
    before = sum(path.stat().st_size for path in (options.folder / "images").iterdir())
    after = sum(path.stat().st_size for path in out.glob("*.array_record-*"))
    print(f"{len(lines)} records in {spent:.1f} CPU seconds ({passed:.1f} passed): {len(lines) / spent:.1f} a second")
    print(f"pictures {before / 1e6:.0f} MB, shards {after / 1e6:.0f} MB")


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def make_pictures(folder: Path, count: int) -> None:
    """Writes pictures with smooth colours and some noise, and a record of each."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    draws = np.random.default_rng(0)
    lines = []
    for number in range(count):
        longest = round(np.exp(draws.uniform(np.log(200), np.log(3000))))
        aspect = np.exp(draws.uniform(-np.log(3), np.log(3)))
        width, height = round(longest * min(aspect, 1)), round(longest / max(aspect, 1))
        coarse = draws.integers(0, 256, (max(height // 16, 2), max(width // 16, 2), 3), np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
        pixels = np.clip(smooth + draws.normal(0, 6, (height, width, 1)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number}.jpg", quality=int(draws.integers(75, 96)))
        lines.append({"id": f"{number:06d}", "image": f"{number}.jpg", "prompt": f"made-up picture {number}"})
    (folder / "records.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


if __name__ == "__main__":
    main()
