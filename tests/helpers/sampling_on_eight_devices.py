"""Samples eight pictures and texts on one device and on meshes of eight, in a process with eight devices.

`XLA_FLAGS=--xla_force_host_platform_device_count=8 python -m tests.helpers.sampling_on_eight_devices` compares each run
with one device and dense attention. It prints whether the noise is bit for bit equal, the difference of the latents,
whether the texts are equal, the number of devices that hold the latents, and whether the program contains the kernel.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from typing import Any

import jax
import numpy as np

from tests.helpers.made_up_pictures import DRAWN, EDITED, SEED, latents_in
from tests.helpers.made_up_plans import TOKENIZER
from tests.helpers.made_up_records import LAYOUT
from tests.helpers.small_model import quick_jit, small_model, small_params
from uno_jax.inference.picture_inputs import PictureInputs, picture_inputs, read_branches
from uno_jax.models.config import ModelConfig
from uno_jax.parallel.axes import on_mesh
from uno_jax.parallel.mesh import MeshConfig, make_mesh, put_rows
from uno_jax.parallel.parameters import tree_shardings
from uno_jax.sampling.flow import denoise, initial_noise
from uno_jax.sampling.guidance import GuidanceConfig
from uno_jax.sampling.schedule import FlowConfig
from uno_jax.sampling.text import TextConfig, write_text

RUNS = {
    "one": (MeshConfig(data=1, fsdp=1), "dense"),
    "data8": (MeshConfig(data=8, fsdp=1), "dense"),
    "data2_fsdp4": (MeshConfig(data=2, fsdp=4), "dense"),
    "data2_tensor2_sequence2": (MeshConfig(data=2, fsdp=1, tensor=2, sequence=2), "dense"),
    "data2_tensor2_sequence2_kernel": (MeshConfig(data=2, fsdp=1, tensor=2, sequence=2), "kernel"),
}
FLOW = FlowConfig(4, 3.0, GuidanceConfig(interval=(0.5, 1.0)), solver_order=2)
TEXT = TextConfig(6, temperature=1.0)


def model_with(attention: str) -> ModelConfig:
    """Returns a small model whose MLP is wide enough to shard its kernels over fsdp."""
    return small_model(decoder={"mlp_size": 1024, "attention": attention}, vision={"attention": attention})


def run(model: ModelConfig, params: Any, inputs: PictureInputs, latents: Any) -> tuple[Any, Any, Any]:
    """Returns noise, final latents, and texts written in place of the pictures' blocks."""
    branches = read_branches(params, inputs, latents, model)
    noise = initial_noise(inputs.target, SEED, model)
    first = jax.tree.map(lambda x: x[:, :1], inputs.target.understanding)
    seeds = inputs.target.latent_source.occurrence[:, 0]
    ids = write_text(params, branches.conditional.cache, first, TOKENIZER.start, (), model, TEXT, seeds)
    return noise, denoise(params, branches, noise, model, FLOW)[0], ids


def main() -> None:
    assert jax.device_count() == 8, f"{jax.device_count()} devices: set XLA_FLAGS as the docstring says"
    plans = [dataclasses.replace(plan, seed=i) for i, plan in enumerate([DRAWN, EDITED] * 4)]
    inputs = picture_inputs(plans, LAYOUT, TOKENIZER)
    results: dict[str, dict[str, Any]] = {}
    for name, (config, attention) in RUNS.items():
        mesh, model = make_mesh(config, jax.devices()[: 1 if name == "one" else 8]), model_with(attention)
        params = small_params(model)
        params = jax.device_put(params, tree_shardings(params, mesh))
        arguments = params, *put_rows((inputs, latents_in(inputs.context)), mesh)
        traced = quick_jit(on_mesh(mesh)(functools.partial(run, model))).trace(*arguments)
        out = traced.lower().compile()(*arguments)
        noise, latents, ids = (np.asarray(x) for x in out)
        if name == "one":
            expected = noise, latents, ids
        results[name] = {
            "noise": bool(np.array_equal(noise, expected[0])),
            "difference": float(np.abs(latents - expected[1]).max()),
            "texts": bool(np.array_equal(ids, expected[2])),
            "devices": len(out[1].sharding.device_set),
            "kernel": "pallas_call" in str(traced.jaxpr),
        }
    print(json.dumps(results))


if __name__ == "__main__":
    main()
