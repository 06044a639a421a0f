"""Host memory of an import and export of several GiB, in addition to the placed arrays."""

from __future__ import annotations

import filecmp
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from tests.helpers.paths import REFERENCE, ROOT
from tests.helpers.public_tensors import expected_autoencoder_tensors, expected_public_tensors
from uno_jax.data.tokenizer_files import TOKENIZER_FILES
from uno_jax.interop.names import fixed_tables
from uno_jax.interop.sizes import model_config_from_directory
from uno_jax.interop.tensor_files import STORED_DTYPES
from uno_jax.interop.write_tensor_files import TensorPlan, TensorWriter
from uno_jax.models.positions import sincos_table_2d

GIB = 2**30
DECODER_JSON = {
    "hidden_size": 2048,
    "num_hidden_layers": 16,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "intermediate_size": 8192,
    "vocab_size": 65536,
}
AUTOENCODER_JSON = {"ch": 32, "ch_mult": [1, 2, 2, 2], "num_res_blocks": 1}
# The last line of output is the peak resident memory.
PROGRAM = """
import resource, sys
from uno_jax.convert import main
main(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def write_large(directory: Path) -> tuple[int, int]:
    """Writes a bfloat16 public-layout directory. Returns the bytes to place, and those of the largest tensor."""
    directory.mkdir()
    (directory / "llm_config.json").write_text(json.dumps(DECODER_JSON))
    (directory / "config.json").write_text(json.dumps({"vae_config": AUTOENCODER_JSON}))
    for name in TOKENIZER_FILES:
        shutil.copy(REFERENCE / name, directory / name)
    config = model_config_from_directory(directory)
    tables = {table.public: sincos_table_2d(table.side, table.features) for table in fixed_tables(config)}
    noise = np.random.default_rng(0).standard_normal(2**24, np.float32).astype(ml_dtypes.bfloat16)
    sizes = []
    for file, shapes, dtype in (
        ("ema", expected_public_tensors(config), "BF16"),
        ("ae", expected_autoencoder_tensors(config.autoencoder), "F32"),
    ):
        plans = {name: TensorPlan(shape, dtype) for name, shape in shapes.items()}
        sizes += [plan.size for name, plan in plans.items() if name not in tables]
        with TensorWriter(directory, file, plans) as writer:
            for name, shape in shapes.items():
                values = tables[name] if name in tables else np.resize(noise, shape)
                writer.write(name, values.astype(STORED_DTYPES[dtype]))
    return sum(sizes), max(sizes)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    directory = tmp_path_factory.mktemp("large")
    yield directory, *write_large(directory / "public")
    shutil.rmtree(directory)


def convert(*arguments: str, devices: int = 1) -> tuple[int, float]:
    """Runs a command. Returns its peak resident memory in bytes, and its duration in seconds."""
    started = time.monotonic()
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return int(result.stdout.splitlines()[-1]), time.monotonic() - started


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 8])
def test_the_host_holds_little_more_than_the_largest_tensor(large, devices, capsys):
    directory, total, largest = large
    assert total > 4 * GIB
    source, destination = str(directory / "public"), str(directory / "imported")
    peak, seconds = convert("import", source, destination, f"--mesh.fsdp={devices}", "--overwrite", devices=devices)
    # Replicated arrays are counted once, so this is an upper bound.
    extra = peak - total
    with capsys.disabled():
        print(
            f"\nimported {total / GIB:.2f} GiB onto {devices} devices in {seconds:.0f} s: peak memory in addition to "
            f"the placed arrays {extra / GIB:.2f} GiB; largest tensor {largest / GIB:.2f} GiB"
        )
    assert extra < largest + 2 * GIB


@pytest.mark.slow
def test_an_export_holds_one_array_at_a_time_and_restores_the_file(large, capsys):
    directory, total, _ = large
    if not (directory / "imported").exists():
        convert("import", str(directory / "public"), str(directory / "imported"))
    peak, seconds = convert("export", str(directory / "imported"), str(directory / "exported"))
    array = 2 * DECODER_JSON["num_hidden_layers"] * DECODER_JSON["hidden_size"] * DECODER_JSON["intermediate_size"]
    with capsys.disabled():
        print(
            f"\nexported {total / GIB:.2f} GiB in {seconds:.0f} s: peak memory {peak / GIB:.2f} GiB; largest array of "
            f"our tree {array / GIB:.2f} GiB"
        )
    assert peak < 3 * array + GIB
    for name in ("ema.safetensors", "ae.safetensors"):
        assert filecmp.cmp(directory / "public" / name, directory / "exported" / name, shallow=False)
