"""The benchmark for one GPU: what it needs, its rows and its table. A slow test runs it on a CPU at tiny sizes."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys

import numpy as np
import pytest

from tests.helpers.cuda_programs import calls, gpu_mesh, install_cudnn, shapes
from tests.helpers.paths import ROOT
from uno_jax.attention.metadata import CAPTION, CONTEXT, METAQUERY, NOISED, TokenMetadata, pairwise_visible
from uno_jax.parallel.axes import on_mesh

BENCHMARKS = ROOT / "benchmarks"
BASELINE = {"backend", "compile", "passes", "first_s", "median_s", "min_s", "max_s", "peak_gib", "device", "torch"}
"""Keys of the PyTorch program."""
DATA_PACKAGES = ("array_record", "clu", "grain", "orbax", "PIL", "pyarrow", "tensorflow_datasets", "tokenizers")


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)  # for a script its own folder is on the path
    return importlib.import_module("benchmarks.gpu")


@pytest.fixture
def rows(gpu):
    return importlib.import_module("made_up_rows")


def test_it_needs_no_data_packages():
    missing = ";".join(f"sys.modules[{name!r}] = None" for name in DATA_PACKAGES)
    program = f"import sys; {missing}; sys.path.insert(0, {str(BENCHMARKS)!r}); import gpu"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_a_row_has_a_prompt_a_noised_block_a_caption_and_metaqueries(gpu, rows):
    batch = rows.made_up_rows(gpu.TINY.model, 2, 4, prompt=3, captions=2, queries=4)
    tokens = TokenMetadata(*np.concatenate([batch.understanding, batch.generation], axis=2))
    role, seen = tokens.role[0], pairwise_visible(tokens, tokens)[0]
    counts = {role: int(np.count_nonzero(tokens.role[0] == role)) for role in (CONTEXT, NOISED, CAPTION, METAQUERY)}
    assert counts == {CONTEXT: 3, NOISED: 2 + 16, CAPTION: 2, METAQUERY: 4}
    assert seen[role == NOISED].sum(axis=1).tolist() == [3 + 18] * 18
    assert seen[role == CAPTION].sum(axis=1).tolist() == [18 + 1, 18 + 2]
    assert seen[role == METAQUERY].sum(axis=1).tolist() == [18 + 4] * 4


def test_a_sampled_block_sees_its_cached_prompt(gpu, rows):
    batch = rows.made_up_rows(gpu.TINY.model, 1, 4, prompt=3, captions=0, queries=0)
    context, block = rows.block_after(batch, 3)
    assert pairwise_visible(block.generation, context).all()
    assert block.text_ids.shape == (1, 2)


@pytest.mark.parametrize(
    ("card", "tflops"), [("NVIDIA H100 80GB HBM3", 989), ("NVIDIA H100 PCIe", 756), ("NVIDIA L40S", 362), ("cpu", None)]
)
def test_the_peak_of_a_card_is_known_by_its_name(gpu, card, tflops):
    assert gpu.peak_flops(card) == (tflops and tflops * 1e12)


def test_a_table_has_a_row_for_each_workload_and_says_what_went_wrong(gpu):
    lines = gpu.table([{"workload": "sample", "rows": 1, "median_s": 2.0}, {"workload": "expert", "problem": "no"}])
    first, second = lines.splitlines()[2:]
    assert first.startswith("| sample | 1 | - | 2 |")
    assert second.endswith("| no |")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--workload=sample"], (2, 0)),  # steps with and without guidance
        (["--workload=adapters", "--remat=full"], (3, 1)),  # the decoder twice, and the vision encoder
        (["--workload=adapters", "--remat=save_attention"], (2, 1)),
    ],
)
def test_at_the_published_sizes_a_gpu_gets_calls_of_cudnn_and_at_most_a_mask(gpu, monkeypatch, arguments, expected):
    install_cudnn(monkeypatch)
    args = gpu.options().parse_args(arguments)
    make = gpu.sample_workload if args.workload == "sample" else gpu.train_workload
    workload = make(args, gpu.FULL)
    with on_mesh(gpu_mesh()):
        program = workload.program.trace(*workload.arguments).lower(lowering_platforms=("cuda",)).as_text()
    assert calls(program) == expected
    lengths = {4096, 4098, 4098 + 64, 4864}  # latents, the block, the block and its prompt, a row in training
    pairs = {shape for shape in shapes(program) if sum(size in lengths for size in shape) > 1}
    assert pairs <= (set() if args.workload == "sample" else {(1, 1, 4864, 4864), (1, 4864, 4864)})


@pytest.mark.slow
@pytest.mark.parametrize("workload", [("sample", "--steps=4"), ("adapters", "--remat=full"), ("expert", "--rows=2")])
def test_a_workload_runs_on_a_cpu_at_tiny_sizes_and_prints_its_table_last(workload):
    command = [sys.executable, "benchmarks/gpu.py", "--tiny", "--repeat=1", f"--workload={workload[0]}", workload[1]]
    lines = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    report = json.loads(lines[0])
    assert report.keys() > BASELINE | {"compile_seconds", "second_compile_seconds", "planned_gib", "mfu"}
    assert report["problem"] is None
    assert report["passes"] == (6 if workload[0] == "sample" else 1)
    assert lines[-1].startswith(f"| {workload[0]} |")
