"""Samples images by integrating the flow from noise at t = 1 to t = 0, given cached contexts."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from uno_jax.attention.metadata import TokenMetadata
from uno_jax.batch import TokenBatch
from uno_jax.models.config import ModelConfig
from uno_jax.models.decoder import KVCache
from uno_jax.models.unified import UnifiedModel
from uno_jax.objectives.draws import draw_noise
from uno_jax.sampling.cache import fitted
from uno_jax.sampling.guidance import GuidanceNumbers, Rescale, guidance_numbers, guide
from uno_jax.sampling.schedule import (
    CONDITIONAL,
    GUIDED,
    GUIDED_EXTRAPOLATED,
    FlowConfig,
    Schedule,
    make_schedule,
)

Params = Any


class Branch(NamedTuple):
    """A context and the noised block that follows it, one image per row."""

    cache: KVCache
    """The context."""
    target: TokenBatch
    """Only the two delimiters and the latents of the block."""


class Branches(NamedTuple):
    """The same images in each context that guidance needs. Latents have the same places in all branches."""

    conditional: Branch
    without_text: Branch | None = None
    """The context without its last text, or with a negative prompt in its place. None: no guidance."""
    without_image: Branch | None = None
    """The texts of the context without images. None: equal to `conditional`, or not needed; saves a forward pass."""


class Trajectory(NamedTuple):
    """Records of all steps of a sample."""

    latents: Float[Array, "steps batch latents latent_size"]
    """x_t at the start of each step."""
    velocity: Float[Array, "steps batch latents latent_size"]
    """Guided velocity of each step."""


def sample_latents(
    params: Params, branches: Branches, model: ModelConfig, config: FlowConfig, seed: int = 0
) -> Float[Array, "batch latents latent_size"]:
    """Samples clean latents of images, with noise from `seed` and the sources (occurrence, image) of their targets.

    The noise equals that of the train step bit for bit, and does not depend on other rows, padding or devices. Compiles
    one program per set of shapes, step kinds and branches. Other numeric settings reuse it.
    """
    start = initial_noise(branches.conditional.target, seed, model)
    return denoise(params, branches, start, model, config)[0]


def initial_noise(target: TokenBatch, seed: int, model: ModelConfig) -> Float[Array, "batch latents latent_size"]:
    """Draws x_1 for the latents of a batch; 0 for padding."""
    noise = draw_noise(target, seed, model.latent_size)
    return jnp.where(target.generation.sample[..., None] > 0, noise, 0.0)


def denoise(
    params: Params,
    branches: Branches,
    start: Float[Array, "batch latents latent_size"],
    model: ModelConfig,
    config: FlowConfig,
    *,
    trajectory: bool = False,
) -> tuple[Float[Array, "batch latents latent_size"], Trajectory | None]:
    """Denoises `start` to clean latents in one jitted program; also returns the trajectory if `trajectory` is set."""
    guidance = config.guidance
    used = [branches.conditional]
    if branches.without_text is not None and config.guided_by_text:
        used.append(branches.without_text)
        if branches.without_image is not None and config.guided_by_images:
            used.append(branches.without_image)
    schedule = make_schedule(config, guided=len(used) > 1)
    sampled: tuple[Array, Trajectory | None] = _denoise(
        params,
        used,
        start,
        schedule,
        guidance_numbers(guidance),
        model=model,
        rescale=guidance.rescale,
        kinds=schedule.kinds,
        trajectory=trajectory,
    )
    return sampled


class _State(NamedTuple):
    """Carry of the scan over steps."""

    latents: Float[Array, "batch latents latent_size"]
    velocities: Float[Array, "earlier batch latents latent_size"]
    """Velocities of the previous steps, newest first."""
    added: Float[Array, "points batch branches latents features"]
    """Updates of the layers to the latents' features at the last computed steps, newest first."""


@functools.partial(jax.jit, static_argnames=("model", "rescale", "kinds", "trajectory"))
def _denoise(
    params: Params,
    branches: list[Branch],
    start: Float[Array, "batch latents latent_size"],
    schedule: Schedule,
    numbers: GuidanceNumbers,
    *,
    model: ModelConfig,
    rescale: Rescale,
    kinds: tuple[int, ...],
    trajectory: bool,
) -> tuple[Float[Array, "batch latents latent_size"], Trajectory | None]:
    unified = UnifiedModel(model)
    rows, latents, _ = start.shape
    points = schedule.feature_weights.shape[1]
    together = _interleaved(branches)
    real = branches[0].target.generation.sample > 0

    def guided(velocities: Float[Array, "rows_and_branches latents latent_size"]) -> Array:
        conditional: Array
        conditional, *others = jnp.moveaxis(velocities.reshape(rows, -1, *velocities.shape[1:]), 1, 0)
        if not others:
            return conditional
        return guide(conditional, others[0], others[1] if others[1:] else conditional, real, numbers, rescale)

    def through_layers(state: _State, t: Array, weights: Array, *, branch: Branch, count: int) -> tuple[Array, Array]:
        x = jnp.repeat(state.latents, count, axis=0)
        computed: Any = unified.apply({"params": params}, branch.target, x, t, branch.cache, method="denoise")
        velocities, added = computed
        if not points:
            return guided(velocities), state.added
        newest = state.added[0].at[:, :count].set(added.reshape(rows, count, *added.shape[1:]))
        return guided(velocities), jnp.concatenate([newest[None], state.added[:-1]])

    def extrapolated(state: _State, t: Array, weights: Array, *, branch: Branch, count: int) -> tuple[Array, Array]:
        x = jnp.repeat(state.latents, count, axis=0)
        added = jnp.tensordot(weights, state.added[:, :, :count].astype(jnp.float32), 1)
        added = added.reshape(-1, *added.shape[2:])
        velocities: Any = unified.apply({"params": params}, branch.target, x, t, added, method="denoise_with")
        return guided(velocities), state.added

    def chosen(kind: int) -> Callable[[_State, Array, Array], tuple[Array, Array]]:
        compute = through_layers if kind in (GUIDED, CONDITIONAL) else extrapolated
        if kind in (GUIDED, GUIDED_EXTRAPOLATED):
            return functools.partial(compute, branch=together, count=len(branches))
        return functools.partial(compute, branch=branches[0], count=1)

    choices = [chosen(kind) for kind in kinds]

    def step(state: _State, now: Schedule) -> tuple[_State, Trajectory | None]:
        arguments: Any = (state, now.time.reshape(1, 1), now.feature_weights)
        choice = jnp.searchsorted(jnp.array(kinds), now.action)
        velocity, added = jax.lax.switch(choice, choices, *arguments)
        velocity = jnp.where(real[..., None], velocity, 0.0)
        velocities = jnp.concatenate([velocity[None], state.velocities])
        moved = state.latents + jnp.tensordot(now.velocity_weights, velocities, 1)
        record = Trajectory(state.latents, velocity) if trajectory else None
        return _State(moved, velocities[:-1], added), record

    order = schedule.velocity_weights.shape[1]
    state = _State(
        start,
        jnp.zeros((order - 1, *start.shape)),
        jnp.zeros((points, rows, len(branches), latents, model.decoder.hidden_size), model.compute_dtype),
    )
    last, record = jax.lax.scan(step, state, schedule)
    return last.latents, record


def _interleaved(branches: list[Branch]) -> Branch:
    """Interleaves the branches row by row, so that the branches of an image are on the same device.

    Contexts are padded to the longest.
    """
    slots = max(branch.cache.metadata.sample.shape[1] for branch in branches)
    caches = [fitted(branch.cache, slots) for branch in branches]

    def interleave(axis: int, *arrays: Array) -> Array:
        shape = arrays[0].shape
        return jnp.stack(arrays, axis + 1).reshape(*shape[:axis], len(arrays) * shape[axis], *shape[axis + 1 :])

    rows = functools.partial(interleave, 0)
    return Branch(
        KVCache(
            interleave(1, *(cache.keys for cache in caches)),
            interleave(1, *(cache.values for cache in caches)),
            TokenMetadata(*map(rows, *(cache.metadata for cache in caches))),
        ),
        jax.tree.map(rows, *(branch.target for branch in branches)),
    )
