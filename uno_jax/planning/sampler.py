"""Estimates of the image sampler: prefill and all denoising steps, compiled as one program for a slice."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array

from uno_jax.batch import Layout
from uno_jax.data.plans import Text
from uno_jax.data.tokenizer import byte_tokenizer
from uno_jax.inference.picture_inputs import PictureInputs, guided_plan, picture_inputs, read_branches
from uno_jax.models.apart import arranged
from uno_jax.models.config import ModelConfig, layout_of
from uno_jax.models.quantised import Weights, quantised
from uno_jax.parallel.axes import TABLE, on_mesh
from uno_jax.parallel.mesh import batch_sharding, check_rows, make_mesh, replicated, row_parts
from uno_jax.parallel.parameters import with_shardings
from uno_jax.planning.chips import Slice, describe_devices
from uno_jax.planning.estimate import Compiled, compile_for, trace
from uno_jax.planning.example import joined, visible_pairs
from uno_jax.planning.executed import Executed, executed_flops
from uno_jax.planning.memory import Memory, tree_bytes
from uno_jax.planning.model_flops import forward_flops
from uno_jax.planning.roofline import Roofline, roofline
from uno_jax.run.config import RunConfig
from uno_jax.sampling.flow import sample_latents
from uno_jax.sampling.guidance import GuidanceConfig
from uno_jax.sampling.schedule import FlowConfig
from uno_jax.training.initialise import abstract_autoencoder, abstract_params, cast_params
from uno_jax.training.state import Params


@dataclass(frozen=True)
class SamplerEstimate:
    """Memory and speed of sampling a batch of images."""

    config: RunConfig
    target: Slice
    mesh_axes: Mapping[str, int]
    """Sizes of the mesh axes, over all slices."""
    images_per_part: int
    """Images per data-parallel shard."""
    flow: FlowConfig
    tokens: int
    """Tokens that run through the model, in all steps of all images."""
    parameter_bytes: int
    """Bytes on one chip."""
    needed: float
    """Model FLOPs of all images."""
    executed: Executed
    compiled: Compiled
    bound: Roofline | None
    """None if the program does not fit."""

    @property
    def memory(self) -> Memory:
        """Memory of the program."""
        return self.compiled.memory

    @property
    def images(self) -> int:
        """Images per call, on all chips."""
        return self.images_per_part * math.prod(self.mesh_axes[axis] for axis in TABLE["batch"])


def make_sampler_estimate(
    config: RunConfig,
    target: Slice,
    images_per_part: int,
    flow: FlowConfig,
    cache: Path | None = None,
    *,
    weights: Weights = "plain",
) -> SamplerEstimate:
    """Compiles the sampler for images of the maximum size and prompts that fill the text region.

    Parameters are in the run's compute dtype, except int8 kernels.

    Args:
      config: config of the run.
      target: the slice.
      images_per_part: number of images per data-parallel shard.
      flow: settings of the sampler.
      cache: directory of cached compiler reports (`compiler.compile_once`), or None.
      weights: format of the large kernels.

    Raises:
      ConfigError: the mesh does not suit the slice, or one chip has too many images for its attention kernel.
    """
    mesh = make_mesh(config.mesh, describe_devices(target))
    rows = images_per_part * row_parts(mesh)
    check_rows(rows, mesh, field="the number of images")
    model, layout = config.model, layout_of(config.model)
    dtype = model.compute_dtype
    params = cast_params(abstract_params(model), (), dtype, dtype)
    params = params if weights == "plain" else jax.eval_shape(quantised, params)
    params = arranged(with_shardings(params, mesh), model.decoder)
    one = _one_image(config, layout)
    inputs = _abstract(one, rows, mesh)

    def sample(params: Params, inputs: PictureInputs) -> Array:
        no_latents = jnp.zeros((rows, 0, model.latent_size))
        return sample_latents(params, read_branches(params, inputs, no_latents, model), model, flow)

    traced = trace(jax.jit(on_mesh(mesh)(sample), out_shardings=batch_sharding(mesh)), params, inputs)
    executed = executed_flops(traced.jaxpr)
    compiled = compile_for(traced, mesh, target, tree_bytes(abstract_autoencoder(model)), cache)
    bound = None
    if compiled.memory.fits:
        bound = roofline(target, executed.total, compiled.hbm_bytes, compiled.collective_bytes)
    work = _work(one)
    return SamplerEstimate(
        config=config,
        target=target,
        mesh_axes=dict(mesh.shape),
        images_per_part=images_per_part,
        flow=flow,
        tokens=rows * (work.prompt + (flow.timesteps - 1) * 2 * (work.delimiters + work.latents)),
        parameter_bytes=tree_bytes(params),
        needed=rows * _needed(params, model, work, flow),
        executed=executed,
        compiled=compiled,
        bound=bound,
    )


def every_step_guided(timesteps: int, time_shift: float) -> FlowConfig:
    """Returns the public implementation's sampler with guidance at every step: the maximum cost of an image."""
    return FlowConfig(timesteps, time_shift, GuidanceConfig(image_scale=1.0, interval=(0.0, 1.0)))


class _Work(NamedTuple):
    """Tokens and visible pairs of one image."""

    prompt: int
    delimiters: int
    """Delimiters of the noised block."""
    latents: int
    prompt_pairs: int
    step_pairs: tuple[int, int]
    """Pairs of the noised block in one step: with the prompt and without it."""


def _one_image(config: RunConfig, layout: Layout) -> PictureInputs:
    side = config.data.vae_transform.largest_side
    prompt = Text(ids=(0,) * (config.data.text_tokens - 4))
    return picture_inputs([guided_plan((prompt,), side, side)], layout, byte_tokenizer())


def _abstract(one: PictureInputs, rows: int, mesh: Mesh) -> PictureInputs:
    """Abstract inputs of `rows` images."""
    places = batch_sharding(mesh), replicated(mesh)

    def abstract(x: Any) -> jax.ShapeDtypeStruct:
        shape = np.shape(x)
        dtype = np.asarray(x).dtype
        if not shape:
            return jax.ShapeDtypeStruct((), dtype, sharding=places[1])
        return jax.ShapeDtypeStruct((rows, *shape[1:]), dtype, sharding=places[0])

    many: PictureInputs = jax.tree.map(abstract, one)
    return many


def _work(one: PictureInputs) -> _Work:
    context, block, alone = (
        joined(batch.understanding, batch.generation) for batch in (one.context, one.target, one.without_text.target)
    )
    return _Work(
        prompt=int(np.count_nonzero(context.sample)),
        delimiters=int(np.count_nonzero(one.target.understanding.sample)),
        latents=int(np.count_nonzero(one.target.generation.sample)),
        prompt_pairs=visible_pairs(context, context),
        step_pairs=(visible_pairs(block, joined(context, block)), visible_pairs(alone, alone)),
    )


def _needed(params: Params, model: ModelConfig, work: _Work, flow: FlowConfig) -> float:
    """FLOPs of one image: one prefill of the prompt, then the noised block with and without it at every step."""

    def forward(text: int, latent: int, pairs: int) -> float:
        tokens = {"text": text, "vit": 0, "caption": 0, "query": 0, "latent": latent}
        return forward_flops(params, tokens, pairs, model)

    step = sum(forward(work.delimiters, work.latents, pairs) for pairs in work.step_pairs)
    return forward(work.prompt, 0, work.prompt_pairs) + (flow.timesteps - 1) * step
