"""AdamW or Muon, with learning rate schedule, clipping, weight decay mask and moment dtype."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import optax
import optax.contrib
from flax.traverse_util import flatten_dict, unflatten_dict

from uno_jax.config import Dtype


@dataclass(frozen=True)
class OptimizerConfig:
    """Config of the optimizer. The defaults are BAGEL's published fine-tuning settings."""

    rule: Literal["adamw", "muon"] = "adamw"
    """`muon`: the kernels of the layers are updated by their orthogonalised momentum (Muon, arXiv:2502.16982), scaled
    to the usual size of an Adam update; all other parameters by AdamW. Meant for small models from random
    initialisation, which learn more from each sample."""
    learning_rate: float = 2e-5
    schedule: Literal["constant", "cosine"] = "constant"
    warmup_steps: int = 0
    final_learning_rate: float = 0.0
    """Learning rate at the end of the cosine schedule."""
    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-15
    weight_decay: float = 0.0
    """Decoupled weight decay of matrices and tables. Biases and norm scales are not decayed."""
    moment_dtype: Dtype = "float32"
    """Dtype of both moments between steps. The update is computed in float32."""
    clip_norm: float = 1.0
    """Maximum global gradient norm; 0 = no clipping."""
    accumulation: int = 1
    """Number of microbatches that the rows of a batch are split into (gradient accumulation)."""
    ema_decay: float = 0.0
    """0 = no EMA. Otherwise the decay at step n is min(ema_decay, (1 + n) / (10 + n))."""
    ema_memory: Literal["device", "host"] = "device"
    """Memory that holds the EMA between steps. `host` frees device memory, but every step transfers the EMA both
    ways."""
    metaquery_warmup_steps: int = 0
    """Number of first steps that update only the parts that a public checkpoint lacks: the metaqueries, their head, and
    the head of the align loss."""
    nonfinite: Literal["stop", "skip"] = "stop"
    """Reaction to a non-finite loss or gradient: `stop` latches the state and ends the run, `skip` skips the batch."""


def learning_rate_schedule(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Returns a schedule: linear warm-up from 0, then constant, or a cosine to `final_learning_rate` at `steps`.

    Raises:
      ValueError: the warm-up is longer than the run.
    """
    if config.warmup_steps > steps:
        raise ValueError(
            f"optimizer.warmup_steps is {config.warmup_steps}, more than the {steps} steps of the run; lower it"
        )
    rest = max(steps - config.warmup_steps, 1)
    if config.schedule == "cosine":
        fall = optax.cosine_decay_schedule(config.learning_rate - config.final_learning_rate, rest)

        def after(count: jax.typing.ArrayLike) -> jax.typing.ArrayLike:
            rate: jax.Array = config.final_learning_rate + fall(count)
            return rate
    else:
        after = optax.constant_schedule(config.learning_rate)
    # The first update has schedule count 0. Warm-up counts from 1, so that it is not zero.
    warmup = optax.linear_schedule(
        config.learning_rate / max(config.warmup_steps, 1), config.learning_rate, max(config.warmup_steps - 1, 1)
    )
    return optax.join_schedules([warmup, after], [config.warmup_steps])


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """Chains clipping by global norm, the rule, decoupled weight decay and the learning rate, all in float32."""
    parts = [] if not config.clip_norm else [optax.clip_by_global_norm(config.clip_norm)]
    rule = optax.scale_by_adam(config.beta1, config.beta2, config.epsilon)
    if config.rule == "muon":
        rule = optax.partition({"muon": _muon(), "adam": rule}, _rules)
    parts.append(_stored_as(rule, jnp.dtype(config.moment_dtype)))
    if config.weight_decay:
        parts.append(optax.add_decayed_weights(config.weight_decay, mask=decay_mask))
    parts.append(optax.scale_by_learning_rate(learning_rate_schedule(config, steps)))
    return optax.chain(*parts)


def _muon() -> optax.GradientTransformation:
    """Orthogonalised momentum. Its root mean square is about that of an Adam update, so one learning rate fits both."""
    return optax.chain(
        optax.contrib.scale_by_muon(beta=0.95, weight_dimension_numbers=_matrices),
        optax.stateless(lambda updates, _: jax.tree.map(_like_adam, updates)),
    )


def _rules(params: optax.Params) -> optax.Params:
    """Returns the rule of every parameter: `muon` for the kernels of the layers."""
    flat = flatten_dict(params)
    return unflatten_dict({path: "muon" if path[-1] == "kernel" and "layers" in path else "adam" for path in flat})


def _matrices(params: optax.Params) -> optax.Params:
    """The last two axes of a kernel are a matrix. The axis before, if any, is that of the layers."""
    return jax.tree.map(lambda _: optax.contrib.MuonDimensionNumbers(-2, -1), params)


def _like_adam(update: jax.Array) -> jax.Array:
    return update * (0.2 * math.sqrt(max(update.shape[-2:])))


def decay_mask(params: optax.Params) -> optax.Params:
    """Returns True for kernels, tables and the embedding, and False for biases and norm scales."""
    flat = flatten_dict(params)
    return unflatten_dict({path: path[-1] not in ("bias", "scale") for path in flat})


def _stored_as(inner: optax.GradientTransformation, dtype: jnp.dtype) -> optax.GradientTransformation:
    """Wraps `inner` so that floating-point state is stored in `dtype` between updates, for any parameter dtype."""

    def cast(state: optax.OptState, to: jnp.dtype) -> optax.OptState:
        return jax.tree.map(lambda x: x.astype(to) if jnp.issubdtype(x.dtype, jnp.floating) else x, state)

    def update(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        updates, state = inner.update(updates, cast(state, jnp.dtype(jnp.float32)), params)
        return updates, cast(state, dtype)

    return optax.GradientTransformation(lambda params: cast(inner.init(params), dtype), update)


def ema_decay(config: OptimizerConfig, updates: jax.Array) -> jax.Array:
    """Returns the EMA decay, with a warm-up so that an early EMA is not dominated by the initial weights."""
    n = updates.astype(jnp.float32)
    return jnp.minimum(config.ema_decay, (1 + n) / (10 + n))
