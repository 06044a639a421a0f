"""AdamW by config: schedule, clipping, decay mask, moment dtype."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from uno_jax.config import Dtype


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW. The defaults are the published fine-tuning settings of the public model."""

    learning_rate: float = 2e-5
    schedule: Literal["constant", "cosine"] = "constant"
    warmup_steps: int = 0
    final_learning_rate: float = 0.0
    """Where the cosine ends."""
    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-15
    weight_decay: float = 0.0
    """Decoupled; acts on matrices and tables, never on biases and norm scales."""
    moment_dtype: Dtype = "float32"
    """How both moments are stored between steps; the update itself is float32."""
    clip_norm: float = 1.0
    """Global gradient norm; 0 = no clipping."""
    accumulation: int = 1
    """Microbatches of one step. The batch's rows are split into this many."""
    ema_decay: float = 0.0
    """0 = no average. Otherwise the decay at step n is min(ema_decay, (1 + n) / (10 + n))."""
    ema_memory: Literal["device", "host"] = "device"
    """Where the average lies between steps. In the hosts' memory it takes none of a chip's, and every step reads and
    writes it over there."""
    metaquery_warmup_steps: int = 0
    """First steps in which only the metaqueries and their head are updated."""
    nonfinite: Literal["stop", "skip"] = "stop"
    """What follows a non-finite loss or gradient: `stop` latches the state and ends the run, `skip` drops the batch."""


def learning_rate_schedule(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Linear warm-up from 0, then constant, or a cosine down to `final_learning_rate` at `steps`.

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
    # The first update has schedule count 0; it should move, so warm-up counts from 1.
    warmup = optax.linear_schedule(
        config.learning_rate / max(config.warmup_steps, 1), config.learning_rate, max(config.warmup_steps - 1, 1)
    )
    return optax.join_schedules([warmup, after], [config.warmup_steps])


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """Clip by global norm, Adam, decoupled weight decay, learning rate; for float32 gradients, of which updates are."""
    parts = [] if not config.clip_norm else [optax.clip_by_global_norm(config.clip_norm)]
    adam = optax.scale_by_adam(config.beta1, config.beta2, config.epsilon)
    parts.append(_stored_as(adam, jnp.dtype(config.moment_dtype)))
    if config.weight_decay:
        parts.append(optax.add_decayed_weights(config.weight_decay, mask=decay_mask))
    parts.append(optax.scale_by_learning_rate(learning_rate_schedule(config, steps)))
    return optax.chain(*parts)


def decay_mask(params: optax.Params) -> optax.Params:
    """True for kernels, tables and the embedding; False for biases and norm scales."""
    flat = flatten_dict(params)
    return unflatten_dict({path: path[-1] not in ("bias", "scale") for path in flat})


def _stored_as(inner: optax.GradientTransformation, dtype: jnp.dtype) -> optax.GradientTransformation:
    """`inner` with the floating leaves of its state kept in `dtype` between updates, whatever the parameters' dtype."""

    def cast(state: optax.OptState, to: jnp.dtype) -> optax.OptState:
        return jax.tree.map(lambda x: x.astype(to) if jnp.issubdtype(x.dtype, jnp.floating) else x, state)

    def update(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        updates, state = inner.update(updates, cast(state, jnp.dtype(jnp.float32)), params)
        return updates, cast(state, dtype)

    return optax.GradientTransformation(lambda params: cast(inner.init(params), dtype), update)


def ema_decay(config: OptimizerConfig, updates: jax.Array) -> jax.Array:
    """Decay with warm-up, so that an average over few steps is not the initial weights."""
    n = updates.astype(jnp.float32)
    return jnp.minimum(config.ema_decay, (1 + n) / (10 + n))
