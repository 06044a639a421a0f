"""The train state: trainable and frozen parameters apart, the optimizer's state, and what latches on a bad step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, no_type_check

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Bool, Float, Int

from uno_jax.models.adapters import ADAPTERS
from uno_jax.objectives.losses import GRADIENT_NORMS

Params = Mapping[str, Any]

UNO_TRAINABLE = (
    "decoder/layers/generation",
    "decoder/norm/generation",
    "latent_in",
    "latent_out",
    "timestep_embedder",
    "metaqueries",
)
"""The generation expert, the latent projections, the timestep embedder, the metaqueries and their head."""

ADAPTERS_TRAINABLE = (ADAPTERS, "latent_in", "latent_out", "timestep_embedder", "metaqueries")
"""The same with the generation expert itself frozen under its adapters."""

OPTIONAL_PARTS = ("metaqueries", ADAPTERS)
"""What a model need not have."""

EVERYTHING = ("",)


@no_type_check  # at run time: JAX also makes states whose leaves are no arrays
@flax.struct.dataclass
class TrainState:
    """All that a step reads and writes besides the batch. Frozen leaves have no gradient and no optimizer state."""

    step: Int[Array, ""]
    """Batches consumed; a batch that was skipped counts, one that latched the state does not."""
    trainable: Params
    frozen: Params
    opt_state: optax.OptState
    ema: Params | None
    """Float32 averages of the trainable leaves, or None."""
    gradient_norms: dict[str, Float[Array, ""]]
    """Running estimate of each loss's gradient norm into the generation expert; 0 = not measured yet."""
    latched: Bool[Array, ""]
    """A non-finite loss or gradient was met and refused: later steps change nothing."""
    skipped: Int[Array, ""]
    """Batches that were skipped for a non-finite loss or gradient."""


def partition(params: Params, trainable: Sequence[str]) -> tuple[Params, Params]:
    """Splits a parameter tree into (trainable, frozen) by path prefixes such as `decoder/norm`; `""` takes all.

    Raises:
      ValueError: a prefix that no parameter has, and that is none of an optional part.
    """
    flat = flatten_dict(params, sep="/")
    matches = {prefix: [path for path in flat if is_under(path, prefix)] for prefix in trainable}
    unknown = [prefix for prefix, paths in matches.items() if not paths and prefix not in OPTIONAL_PARTS]
    if unknown:
        raise ValueError(f"trainable names {unknown}, which no parameter has; the parts are {sorted(params)}")
    chosen = {path for paths in matches.values() for path in paths}
    return (
        unflatten_dict({path: leaf for path, leaf in flat.items() if path in chosen}, sep="/"),
        unflatten_dict({path: leaf for path, leaf in flat.items() if path not in chosen}, sep="/"),
    )


def merge(trainable: Params, frozen: Params) -> Params:
    """The whole parameter tree again."""
    whole: Params = unflatten_dict(flatten_dict(trainable, sep="/") | flatten_dict(frozen, sep="/"), sep="/")
    return whole


def is_under(path: str, prefix: str) -> bool:
    """Whether a parameter's path (`decoder/norm/generation/scale`) is the prefix or lies below it; `""` takes all."""
    return not prefix or path == prefix or path.startswith(prefix + "/")


def create_state(
    params: Params, trainable: Sequence[str], optimizer: optax.GradientTransformation, *, ema: bool
) -> TrainState:
    """The state before the first step. Trainable leaves keep the dtype they are given in."""
    train, frozen = partition(params, trainable)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        trainable=train,
        frozen=frozen,
        opt_state=optimizer.init(train),
        # Copies: a donated state may not hold one buffer twice.
        ema=jax.tree.map(lambda x: jnp.array(x, jnp.float32), train) if ema else None,
        gradient_norms={name: jnp.zeros((), jnp.float32) for name in GRADIENT_NORMS},
        latched=jnp.zeros((), bool),
        skipped=jnp.zeros((), jnp.int32),
    )
