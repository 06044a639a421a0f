"""The plan of a sampler: reading contexts and all denoising steps, as one program, compiled for a slice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import rich.table
from jax.sharding import Mesh
from jaxtyping import Array

from uno_jax.data.layout import Layout, lay_out
from uno_jax.data.plans import NoisedTarget, Text
from uno_jax.parallel.axes import on_mesh
from uno_jax.parallel.mesh import batch_sharding, check_rows, make_mesh, replicated
from uno_jax.picture_inputs import PictureInputs, guided_plan, picture_inputs, read_branches
from uno_jax.planning.chips import GIB, Slice, describe_devices
from uno_jax.planning.example import DELIMITERS
from uno_jax.planning.executed import Executed, executed_flops
from uno_jax.planning.memory import tree_bytes
from uno_jax.planning.model_flops import forward_flops
from uno_jax.planning.plan import Compiled, compile_for
from uno_jax.planning.roofline import Roofline, roofline
from uno_jax.programs import layout_of
from uno_jax.run_config import RunConfig
from uno_jax.sampling.flow import sample_latents
from uno_jax.sampling.guidance import GuidanceConfig
from uno_jax.sampling.schedule import FlowConfig
from uno_jax.start import abstract_run_params
from uno_jax.training.state import Params


@dataclass(frozen=True)
class SamplerPlan:
    """What sampling a batch of pictures needs, and how fast it can be."""

    target: Slice
    images: int
    flow: FlowConfig
    parameter_bytes: int
    needed: float
    executed: Executed
    compiled: Compiled
    bound: Roofline | None


def make_sampler_plan(config: RunConfig, target: Slice, images_per_part: int, flow: FlowConfig) -> SamplerPlan:
    """Compiles the sampler of pictures of the largest size, from prompts that fill the text region.

    Parameters are in the run's compute dtype. `images_per_part` is the number of pictures on each part of the mesh that
    has rows of its own.

    Raises:
      ConfigError: the mesh does not suit the slice.
    """
    mesh = make_mesh(config.mesh, describe_devices(target))
    rows = images_per_part * mesh.shape["data"] * mesh.shape["fsdp"]
    check_rows(rows, mesh, field="the number of pictures")
    model, layout = config.model, layout_of(config.model)
    params = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, jnp.dtype(model.compute_dtype), sharding=x.sharding),
        abstract_run_params(config, mesh),
    )
    inputs = _abstract_inputs(config, layout, rows, mesh)

    def sample(params: Params, inputs: PictureInputs) -> Array:
        no_latents = jnp.zeros((rows, 0, model.latent_size))
        return sample_latents(params, read_branches(params, inputs, no_latents, model), model, flow)

    traced = jax.jit(on_mesh(mesh)(sample), out_shardings=batch_sharding(mesh)).trace(params, inputs)
    executed, compiled = executed_flops(traced.jaxpr), compile_for(traced, mesh, target)
    bound = None
    if compiled.memory.fits:
        bound = roofline(target, executed.total, compiled.hbm_bytes, compiled.collective_bytes)
    needed = rows * _needed(params, config, layout, flow)
    return SamplerPlan(target, rows, flow, tree_bytes(params), needed, executed, compiled, bound)


def every_step_guided(timesteps: int, time_shift: float) -> FlowConfig:
    """The public implementation's sampler with its guidance at every step: the most that a picture can cost."""
    return FlowConfig(timesteps, time_shift, GuidanceConfig(image_scale=1.0, interval=(0.0, 1.0)))


def _abstract_inputs(config: RunConfig, layout: Layout, rows: int, mesh: Mesh) -> PictureInputs:
    side = config.data.vae_transform.largest_side
    prompt = Text(ids=(0,) * (config.data.text_tokens - 4))
    inputs = picture_inputs([guided_plan((prompt,), side, side)], layout, DELIMITERS)
    places = batch_sharding(mesh), replicated(mesh)

    def abstract(x: Any) -> jax.ShapeDtypeStruct:
        shape = np.shape(x)
        dtype = np.asarray(x).dtype
        if not shape:
            return jax.ShapeDtypeStruct((), dtype, sharding=places[1])
        return jax.ShapeDtypeStruct((rows, *shape[1:]), dtype, sharding=places[0])

    return jax.tree.map(abstract, inputs)


def _needed(params: Params, config: RunConfig, layout: Layout, flow: FlowConfig) -> float:
    """FLOPs of one picture: its prompt read once, and its block with and without it at every step."""
    side = config.data.vae_transform.largest_side
    block = lay_out((NoisedTarget(pixels=np.zeros((side, side, 3), np.uint8)),), layout, DELIMITERS)
    latents, delimiters = len(block["latent"]), len(block["text"])
    prompt, noised = config.data.text_tokens - delimiters, latents + delimiters
    nothing = {"vit": 0, "caption": 0, "query": 0}

    def forward(text: int, latent: int, pairs: int) -> float:
        tokens: Mapping[str, int] = {"text": text, "latent": latent, **nothing}
        return forward_flops(params, tokens, pairs, config.model)

    read = forward(prompt, 0, prompt * (prompt + 1) // 2)
    step = forward(delimiters, latents, noised * (noised + prompt)) + forward(delimiters, latents, noised * noised)
    return read + (flow.timesteps - 1) * step


def sampler_json(plan: SamplerPlan, fraction: float) -> dict[str, Any]:
    """As `report.plan_json`, of a sampler."""
    memory, bound = plan.compiled.memory, plan.bound
    return {
        "program": "sampler",
        "topology": plan.target.name,
        "chips": plan.target.chips,
        "images_per_chip": plan.images / plan.target.chips,
        "timesteps": plan.flow.timesteps,
        "ema": False,
        "fits": memory.fits,
        "hbm_peak_gib": round(memory.peak / GIB, 3),
        "hbm_capacity_gib": round(plan.target.chip.hbm_bytes / GIB, 3),
        "hbm_parameters_gib": round(plan.parameter_bytes / GIB, 3),
        "hbm_temporaries_gib": round(memory.temporaries / GIB, 3),
        "model_flops": plan.needed,
        "executed_flops": plan.executed.total,
        "flops_ratio": plan.executed.total / plan.needed,
        "collective_bytes_per_chip": dict(plan.compiled.collective_bytes),
        "hbm_bytes_per_chip": plan.compiled.hbm_bytes,
        "roofline_seconds": None if bound is None else bound.seconds,
        "bound_by": None if bound is None else bound.bound_by,
        "roofline_fraction": fraction,
        "images_per_second": None if bound is None else plan.images / bound.seconds * fraction,
        "compile_seconds": round(plan.compiled.seconds, 1),
    }


def sampler_table(plan: SamplerPlan, fraction: float) -> rich.table.Table:
    """The same for people."""
    memory, bound = plan.compiled.memory, plan.bound
    verdict = "fits" if memory.fits else "DOES NOT FIT"
    title = (
        f"sampler on {plan.target.name}: {plan.images} pictures of {plan.flow.timesteps - 1} guided steps: {verdict}"
    )
    table = rich.table.Table(title=title, title_justify="left", show_edge=False, show_header=False, pad_edge=False)
    for _ in range(3):
        table.add_column()
    table.add_row(
        "memory peak of a chip", f"{memory.peak / GIB:.2f} GiB", f"of {plan.target.chip.hbm_bytes / GIB:.2f} GiB"
    )
    table.add_row("  parameters", f"{plan.parameter_bytes / GIB:.2f} GiB", "")
    table.add_row("model FLOPs", f"{plan.needed / 1e12:,.0f} T", "")
    ratio = plan.executed.total / plan.needed
    table.add_row("executed FLOPs", f"{plan.executed.total / 1e12:,.0f} T", f"{ratio:.3f} x model")
    for name, size in plan.compiled.collective_bytes.items():
        table.add_row(f"collectives over {name}", f"{size / 1e9:.1f} GB", "received by a chip")
    if bound is not None:
        times = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in vars(bound).items() if seconds)
        table.add_row("roofline time", f"{bound.seconds:.2f} s", f"bound by {bound.bound_by}: {times}")
        speed = plan.images / bound.seconds * fraction
        table.add_row(f"at {fraction:.0%} of the roofline", f"{speed:.2f} pictures/s", "")
    table.add_row("compiled in", f"{plan.compiled.seconds:.0f} s", "")
    return table
