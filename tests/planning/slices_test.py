"""The `aot` command with the real TPU compiler on the smallest slices: slow, needs libtpu."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

from tests.helpers.paths import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.skipif(find_spec("libtpu") is None, reason="needs libtpu")]

# All parts of the model, but small: it compiles in a fraction of the time.
NARROW = [
    "--config.model.decoder.num_layers=2",
    "--config.model.decoder.vocab_size=4096",
    "--config.model.decoder.mlp_size=2048",
    "--config.model.vision.num_layers=2",
    "--config.data.latent_tokens=1024",
    "--config.data.vae_transform.max_side=512",
]


def run_aot(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "uno_jax.aot", "--json", *arguments],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )


def aot(*arguments: str) -> dict:
    result = run_aot(*arguments)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def test_the_estimate_of_a_narrow_model_has_every_number():
    estimate = aot("--config=configs/tpu/v5e_4.py", "--topology=v5e:2x2", *NARROW)
    assert estimate["fits"]
    assert estimate["chips"] == 4
    assert estimate["images_per_chip"] == 1
    assert estimate["bound_by"] in ("arithmetic", "memory", "interconnect")
    assert estimate["collective_bytes_per_chip"]["fsdp"] > 0
    assert 1 < estimate["flops_ratio"] < 3
    state = sum(size for part, size in estimate["hbm_state_gib"].items() if part != "gradients")
    assert estimate["hbm_arguments_gib"] == pytest.approx(state, abs=0.05)
    parts = [estimate[f"hbm_{part}_gib"] for part in ("arguments", "temporaries", "program", "autoencoder")]
    assert estimate["hbm_peak_gib"] == pytest.approx(sum(parts), abs=0.01)
    assert estimate["gradient_probe_gib"] is None


def test_the_gradient_probe_is_part_of_the_estimate():
    estimate = aot(
        "--config=configs/tpu/v5e_16.py", "--topology=v5e:4x4", "--config.objective.balance.every=100", *NARROW
    )
    assert estimate["gradient_probe_gib"] == estimate["hbm_peak_gib"] > sum(estimate["hbm_state_gib"].values())


def test_rows_are_lengthened_for_edits():
    estimate = aot("--config=configs/tpu/v5e_4.py", "--topology=v5e:2x2", "--task=editing", *NARROW)
    assert estimate["images_per_chip"] == 1
    assert estimate["widened_rows"] == {"config.data.latent_tokens": 2048, "config.data.vit_tokens": 1369}


def test_the_estimate_of_a_sampler_on_one_chip_uses_the_attention_kernel():
    estimate = aot("--config=configs/tpu/v6e_1.py", "--topology=v6e:1x1", "--sample=1", "--timesteps=3", *NARROW)
    assert estimate["executed_flops_by_source"]["attention_forward"] > 0


def test_a_run_that_does_not_fit_is_reported_with_remedies():
    estimate = aot("--config=configs/tpu/v5e_4.py", "--topology=v5e:2x2", "--config.data.rows=64")
    assert not estimate["fits"]
    assert estimate["hbm_peak_gib"] > estimate["hbm_capacity_gib"]
    assert "config.data.rows=32" in " ".join(estimate["remedies"])


def test_rows_that_do_not_suit_the_hosts_of_the_slice_are_rejected_before_compilation():
    result = run_aot("--config=configs/tpu/v5e_16.py", "--topology=v5e:4x4", "--config.data.rows=16")
    assert result.returncode == 1
    assert "data.rows is 16, not a multiple of data.virtual_shards = 32" in result.stderr
