"""The plan of a sampler: reading contexts and all denoising steps, as one program, compiled for a slice."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array

from uno_jax.data.layout import Layout, lay_out
from uno_jax.data.plans import NoisedTarget, Text
from uno_jax.inference.picture_inputs import PictureInputs, guided_plan, picture_inputs, read_branches
from uno_jax.parallel.axes import TABLE, on_mesh
from uno_jax.parallel.mesh import batch_sharding, check_rows, make_mesh, replicated, row_parts
from uno_jax.planning.chips import Slice, describe_devices
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

    config: RunConfig
    target: Slice
    mesh_axes: Mapping[str, int]
    """Sizes of the mesh axes, over all slices."""
    images_per_part: int
    """Pictures on each part of the mesh that has rows of its own."""
    flow: FlowConfig
    tokens: int
    """That run through the model, in all steps of all pictures."""
    parameter_bytes: int
    needed: float
    executed: Executed
    compiled: Compiled
    bound: Roofline | None
    """None where it does not fit."""

    @property
    def images(self) -> int:
        """Of one call, on all chips."""
        return self.images_per_part * math.prod(self.mesh_axes[axis] for axis in TABLE["batch"])


def make_sampler_plan(config: RunConfig, target: Slice, images_per_part: int, flow: FlowConfig) -> SamplerPlan:
    """Compiles the sampler of pictures of the largest size, from prompts that fill the text region.

    Parameters are in the run's compute dtype. `images_per_part` is the number of pictures on each part of the mesh that
    has rows of its own.

    Raises:
      ConfigError: the mesh does not suit the slice.
    """
    mesh = make_mesh(config.mesh, describe_devices(target))
    rows = images_per_part * row_parts(mesh)
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
    lengths = _lengths(config, layout)
    return SamplerPlan(
        config=config,
        target=target,
        mesh_axes=dict(mesh.shape),
        images_per_part=images_per_part,
        flow=flow,
        tokens=rows * (lengths.prompt + (flow.timesteps - 1) * 2 * lengths.noised),
        parameter_bytes=tree_bytes(params),
        needed=rows * _needed(params, config, lengths, flow),
        executed=executed,
        compiled=compiled,
        bound=bound,
    )


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


class _Lengths(NamedTuple):
    """Tokens of one picture."""

    prompt: int
    delimiters: int
    """Of the noised block."""
    latents: int

    @property
    def noised(self) -> int:
        """What runs at every step of every branch."""
        return self.delimiters + self.latents


def _lengths(config: RunConfig, layout: Layout) -> _Lengths:
    side = config.data.vae_transform.largest_side
    block = lay_out((NoisedTarget(pixels=np.zeros((side, side, 3), np.uint8)),), layout, DELIMITERS)
    delimiters = len(block["text"])
    return _Lengths(config.data.text_tokens - delimiters, delimiters, len(block["latent"]))


def _needed(params: Params, config: RunConfig, lengths: _Lengths, flow: FlowConfig) -> float:
    """FLOPs of one picture: its prompt read once, and its block with and without it at every step."""
    prompt, noised = lengths.prompt, lengths.noised
    nothing = {"vit": 0, "caption": 0, "query": 0}

    def forward(text: int, latent: int, pairs: int) -> float:
        tokens: Mapping[str, int] = {"text": text, "latent": latent, **nothing}
        return forward_flops(params, tokens, pairs, config.model)

    def step(seen: int) -> float:
        return forward(lengths.delimiters, lengths.latents, noised * seen)

    read = forward(prompt, 0, prompt * (prompt + 1) // 2)
    return read + (flow.timesteps - 1) * (step(noised + prompt) + step(noised))
