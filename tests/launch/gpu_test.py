"""The launch script for a machine with GPUs: its commands, what it misses, and the files of its image."""

from __future__ import annotations

from tests.helpers.launch_scripts import LAUNCH, call
from tests.helpers.paths import ROOT

RUN = ("--folder=/mnt/run", "--", "--config=configs/bagel_7b_uno.py", "--workdir=/folder/runs/uno")


def test_a_dry_run_prints_how_the_image_is_built_and_the_run_is_started():
    build, start = call(LAUNCH / "gpu.sh", "--dry-run", *RUN).stdout.splitlines()
    assert build == "+ docker build --file=launch/Dockerfile.gpu --tag=uno_jax_gpu ."
    assert "--gpus=all" in start
    assert "--volume=/mnt/run:/folder" in start
    assert start.endswith("python -m uno_jax.train --config=configs/bagel_7b_uno.py --workdir=/folder/runs/uno")


def test_the_benchmark_needs_no_config():
    output = call(LAUNCH / "gpu.sh", "--dry-run", "--folder=/mnt/run", "--benchmark").stdout
    assert output.splitlines()[-1].endswith("python benchmarks/gpu.py")


def test_everything_that_is_missing_is_named_at_once():
    done = call(LAUNCH / "gpu.sh", check=2)
    assert all(name in done.stderr for name in ("--folder", "--config=FILE", "--workdir=/folder/DIR"))


def test_the_image_copies_existing_files():
    lines = (LAUNCH / "Dockerfile.gpu").read_text().splitlines()
    copied = {name for line in lines if line.startswith("COPY") for name in line.split()[1:-1]}
    kept = {line[1:] for line in (LAUNCH / "Dockerfile.gpu.dockerignore").read_text().splitlines() if line[0] == "!"}
    assert copied == kept == {"requirements.txt", "requirements-gpu.txt", "uno_jax", "configs", "benchmarks"}
    assert all((ROOT / name).exists() for name in copied)
