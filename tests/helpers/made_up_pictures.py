"""Contexts for a small model, and functions to read them and sample pictures, compiled once per shape."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.helpers.made_up_plans import TOKENIZER, latents_of, patches_of
from tests.helpers.made_up_records import LAYOUT
from tests.helpers.pixels import to_float
from tests.helpers.small_model import quick_jit, small_model, small_params
from uno_jax.batch import PixelBatch, TokenBatch
from uno_jax.data.plans import CleanLatents, Plan, Text, VitImage
from uno_jax.inference.picture_inputs import GuidedPlan, guided_plan, picture_inputs, read_branches
from uno_jax.models.decoder import KVCache
from uno_jax.sampling.cache import read_context
from uno_jax.sampling.flow import Branches, denoise, initial_noise
from uno_jax.sampling.schedule import FlowConfig

MODEL = small_model()
PARAMS = small_params(MODEL)
SEED = 5

PROMPT: Plan = (Text(ids=(4, 5, 6)),)
INSTRUCTION: Plan = (
    CleanLatents(pixels=latents_of(1, 2, seed=2)),
    VitImage(pixels=patches_of(1, 2, seed=2)),
    Text(ids=(7, 8)),
)
# Two pictures that differ in context, size and seed.
DRAWN = guided_plan(PROMPT, 16, 16, seed=7)
EDITED = guided_plan(INSTRUCTION, 8, 24, seed=8)


def latents_in(batch: PixelBatch) -> jax.Array:
    """Uses the pixels of context images as their latents. The small model has as many features."""
    return jnp.asarray(to_float(batch.latent_pixels))


@functools.cache
def _reader() -> Any:
    return quick_jit(functools.partial(read_branches, model=MODEL))


@functools.cache
def _context_reader() -> Any:
    return quick_jit(functools.partial(read_context, model=MODEL))


@functools.cache
def _sampler(config: FlowConfig) -> Any:
    return quick_jit(functools.partial(denoise, model=MODEL, config=config, trajectory=True))


@functools.cache
def _noise() -> Any:
    return quick_jit(functools.partial(initial_noise, seed=SEED, model=MODEL))


def read(batch: TokenBatch, cache: KVCache | None = None) -> KVCache:
    return _context_reader()(PARAMS, batch, latents_in(batch), cache=cache)


def branches_of(plans: Sequence[GuidedPlan], rows: int | None = None) -> Branches:
    inputs = picture_inputs(plans, LAYOUT, TOKENIZER, rows)
    return _reader()(PARAMS, inputs, latents_in(inputs.context))


def noise_of(branches: Branches) -> jax.Array:
    return _noise()(branches.conditional.target)


def sample(branches: Branches, config: FlowConfig, start: jax.Array | None = None) -> tuple[np.ndarray, Any]:
    """Returns the final latents and the trajectory, padding included."""
    start = noise_of(branches) if start is None else start
    return _sampler(config)(PARAMS, branches, start)


def pictures(plans: Sequence[GuidedPlan], config: FlowConfig, rows: int | None = None) -> list[np.ndarray]:
    """Returns the latents of each picture, without padding."""
    branches = branches_of(plans, rows)
    real = np.asarray(branches.conditional.target.generation.sample) > 0
    final, _ = sample(branches, config)
    return [np.asarray(final)[i][real[i]] for i in range(len(plans))]
