"""The train state: trainable and frozen parameters, optimizer state, EMA, and the latch for bad steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, no_type_check

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Bool, Float, Int

from uno_jax.config import Dtype
from uno_jax.models.adapters import ADAPTERS
from uno_jax.objectives.config import ObjectiveConfig
from uno_jax.objectives.losses import measured_losses

Params = Mapping[str, Any]

ADDED_PARTS = ("metaqueries", "align_head")
"""Parts that no public checkpoint has: the metaqueries with their head, and the head of the align loss."""

UNO_TRAINABLE = (
    "decoder/layers/generation",
    "decoder/norm/generation",
    "latent_in",
    "latent_out",
    "timestep_embedder",
    *ADDED_PARTS,
)
"""The generation expert, the latent projections, the timestep embedder, and the added parts."""

ADAPTERS_TRAINABLE = (ADAPTERS, "latent_in", "latent_out", "timestep_embedder", *ADDED_PARTS)
"""`UNO_TRAINABLE` with low-rank adapters in place of the generation expert, which stays frozen."""

OPTIONAL_PARTS = (*ADDED_PARTS, ADAPTERS)
"""Parts that a model may lack."""

EVERYTHING = ("",)

ALWAYS_MEASURED = measured_losses(ObjectiveConfig())
"""Losses whose gradient norms are measured whatever their weights."""


@no_type_check  # at run time, because JAX also makes states whose leaves are not arrays
@flax.struct.dataclass
class TrainState:
    """State of training. Frozen leaves have neither gradients nor optimizer state."""

    step: Int[Array, ""]
    """Number of batches consumed, including skipped batches but not one that latched the state."""
    trainable: Params
    frozen: Params
    opt_state: optax.OptState
    ema: Params | None
    """Float32 EMA of the trainable leaves, or None."""
    anchor: Params | None
    """The trainable leaves of the model that the run started from, or None unless a loss needs them."""
    gradient_norms: dict[str, Float[Array, ""]]
    """Running estimate of each loss's gradient norm into the generation expert; 0 = not measured yet."""
    latched: Bool[Array, ""]
    """Whether a loss or gradient was not finite, or a spike to rewind from. Later steps then change nothing."""
    skipped: Int[Array, ""]
    """Number of batches skipped because of a non-finite loss or gradient, or a spike of the loss."""
    recent_losses: Float[Array, " window"] | None = None
    """Losses of the last updates, the newest at the end, infinite before the first; None unless spikes matter."""


def partition(params: Params, trainable: Sequence[str]) -> tuple[Params, Params]:
    """Splits a parameter tree into (trainable, frozen) by path prefixes such as `decoder/norm`. `""` selects all.

    Raises:
      ValueError: no parameter has one of the prefixes, and it does not name an optional part.
    """
    flat = flatten_dict(params, sep="/")
    matches = {prefix: [path for path in flat if is_under(path, prefix)] for prefix in trainable}
    unknown = [prefix for prefix, paths in matches.items() if not paths and prefix not in OPTIONAL_PARTS]
    if unknown:
        raise ValueError(f"trainable names {unknown}, but no parameter has that prefix. Parts are {sorted(params)}")
    chosen = {path for paths in matches.values() for path in paths}
    return (
        unflatten_dict({path: leaf for path, leaf in flat.items() if path in chosen}, sep="/"),
        unflatten_dict({path: leaf for path, leaf in flat.items() if path not in chosen}, sep="/"),
    )


def merge(trainable: Params, frozen: Params) -> Params:
    """Merges two parts of a parameter tree. The inverse of `partition`."""
    params: Params = unflatten_dict(flatten_dict(trainable, sep="/") | flatten_dict(frozen, sep="/"), sep="/")
    return params


def is_under(path: str, prefix: str) -> bool:
    """Whether a parameter's path, such as `decoder/norm/generation/scale`, is the prefix or below it (`""`: always)."""
    return not prefix or path == prefix or path.startswith(prefix + "/")


def is_under_any(path: str, prefixes: Iterable[str]) -> bool:
    """Whether a parameter's path is one of the prefixes or below one (`is_under`)."""
    return any(is_under(path, prefix) for prefix in prefixes)


def create_state(
    params: Params,
    trainable: Sequence[str],
    optimizer: optax.GradientTransformation,
    *,
    ema: bool,
    anchor: Dtype | None = None,
    measured: Iterable[str] = ALWAYS_MEASURED,
    recent_losses: int = 0,
) -> TrainState:
    """Creates the state before the first step.

    Args:
      params: all parameters.
      trainable: path prefixes of the trainable parameters, which keep their dtype.
      optimizer: the optimizer.
      ema: whether to keep an EMA.
      anchor: dtype of the copy of the trainable leaves at the start; None keeps none.
      measured: losses whose gradient norms are measured.
      recent_losses: number of last losses to keep; 0 keeps none.
    """
    train, frozen = partition(params, trainable)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        trainable=train,
        frozen=frozen,
        opt_state=optimizer.init(train),
        # Copies, because a donated state must not contain a buffer twice.
        ema=jax.tree.map(lambda x: jnp.array(x, jnp.float32), train) if ema else None,
        anchor=jax.tree.map(lambda x: jnp.array(x, anchor), train) if anchor else None,
        gradient_norms={name: jnp.zeros((), jnp.float32) for name in measured},
        latched=jnp.zeros((), bool),
        skipped=jnp.zeros((), jnp.int32),
        recent_losses=jnp.full(recent_losses, jnp.inf, jnp.float32) if recent_losses else None,
    )
