"""Low-rank adapters: where they are, what they add, their training, and merging them into kernels."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from tests.helpers.made_up_plans import TEXT_TO_IMAGE, Sample
from tests.helpers.small_model import merge_adapters, model_batch, quick_jit, small_model, small_params
from uno_jax.config import ConfigError
from uno_jax.models.adapters import ADAPTED_LAYERS, ADAPTERS
from uno_jax.models.unified import UnifiedModel
from uno_jax.objectives.config import ObjectiveConfig
from uno_jax.objectives.losses import loss_counts, reduce_losses
from uno_jax.run.config import RunConfig, check_config
from uno_jax.training.initialise import init_params
from uno_jax.training.optimizer import OptimizerConfig, make_optimizer
from uno_jax.training.report import parameters_by_part
from uno_jax.training.state import ADAPTERS_TRAINABLE, create_state, merge
from uno_jax.training.step import StepConfig, draw_for, losses_of, make_gradient_probe, make_train_step

PLAIN = small_model()
ADAPTED = small_model(decoder={"adapter_rank": 3, "adapter_scale": 0.5})
STEP = StepConfig(ADAPTED, ObjectiveConfig(), OptimizerConfig(learning_rate=0.01), steps=5, seed=0)


def batch():
    rows = ([Sample(TEXT_TO_IMAGE, occurrence=number)] for number in (1, 2))
    return jax.tree.map(jnp.asarray, model_batch(*rows))


@functools.cache
def velocity_of(model):
    def velocity(params, noised):
        return UnifiedModel(model).apply({"params": params}, batch(), noised, jnp.full((1, 1), 0.3)).velocity

    return quick_jit(velocity)


def noised():
    return jax.random.normal(jax.random.key(0), (*batch().latent_index.shape, PLAIN.latent_size))


def new_state():
    return create_state(small_params(ADAPTED), ADAPTERS_TRAINABLE, make_optimizer(STEP.optimizer, 5), ema=False)


def test_exactly_the_linear_layers_of_the_generation_expert_have_adapters():
    flat = flatten_dict(small_params(ADAPTED), sep="/")
    expert = "decoder/layers/generation/"
    kernels = {path.removeprefix(expert) for path in flat if path.startswith(expert) and path.endswith("/kernel")}
    kernels = {path for path in kernels if not path.startswith("adapters/")}
    assert kernels == {f"{name}/kernel" for name in ADAPTED_LAYERS}
    added = flat.keys() - flatten_dict(small_params(PLAIN), sep="/").keys()
    assert added == {f"{ADAPTERS}/{name}/{part}/kernel" for name in ADAPTED_LAYERS for part in ("down", "up")}


def test_new_adapters_have_no_effect():
    new = init_params(ADAPTED, 0, (ADAPTERS,))
    flat = flatten_dict(small_params(PLAIN), sep="/") | flatten_dict(new, sep="/")
    with_adapters = jax.tree.map(jnp.asarray, unflatten_dict(flat, sep="/"))
    plain = velocity_of(PLAIN)(small_params(PLAIN), noised())
    np.testing.assert_array_equal(velocity_of(ADAPTED)(with_adapters, noised()), plain)


def test_merging_adapters_into_kernels_keeps_the_velocity():
    params = small_params(ADAPTED)
    merged = merge_adapters(params, ADAPTED.decoder)
    adapted = velocity_of(ADAPTED)(params, noised())
    np.testing.assert_allclose(velocity_of(PLAIN)(merged, noised()), adapted, atol=2e-5, rtol=1e-5)
    without = {path: leaf for path, leaf in flatten_dict(params, sep="/").items() if not path.startswith(ADAPTERS)}
    assert np.abs(velocity_of(PLAIN)(unflatten_dict(without, sep="/"), noised()) - adapted).max() > 0.01


def test_training_adapters_keeps_the_expert_frozen():
    state = new_state()
    frozen = jax.tree.map(np.asarray, state.frozen)
    before = flatten_dict(jax.tree.map(np.asarray, state.trainable), sep="/")
    state, _ = quick_jit(make_train_step(STEP))(state, batch())
    assert "query" in frozen["decoder"]["layers"]["generation"]
    jax.tree.map(np.testing.assert_array_equal, state.frozen, frozen)
    for path, leaf in flatten_dict(state.trainable, sep="/").items():
        assert np.any(leaf != before[path]), path


def test_the_gradient_probe_measures_the_gradient_of_the_adapters():
    _, metrics = quick_jit(make_gradient_probe(STEP))(new_state(), batch())

    def flow_loss(trainable):
        losses = losses_of(merge(trainable, new_state().frozen), batch(), draw_for(batch(), STEP), STEP)
        return reduce_losses(losses, loss_counts(batch()), STEP.objective)["flow"]

    gradient = flatten_dict(quick_jit(jax.grad(flow_loss))(new_state().trainable), sep="/")
    norm = np.sqrt(sum(np.sum(np.square(leaf)) for path, leaf in gradient.items() if path.startswith(ADAPTERS)))
    np.testing.assert_allclose(metrics["gradient_norm/flow"], norm, rtol=1e-4)


def test_adapter_parameters_are_counted_separately():
    state = new_state()
    counts = parameters_by_part(state.trainable, state.frozen)
    features, rank, mlp = 32, 3, 48
    a_layer = sum(
        rank * (i + o) for i, o in [(32, 32), (32, 16), (32, 16), (32, 32), (features, mlp)] + [(32, 48), (48, 32)]
    )
    assert counts["low-rank adapters"] == (2 * a_layer, 0)
    assert counts["generation expert"][0] == 0


def test_training_adapters_with_rank_zero_raises_an_error():
    with pytest.raises(ConfigError, match="adapter_rank is 0: set adapter_rank to at least 1"):
        check_config(RunConfig(trainable=ADAPTERS_TRAINABLE))
    rank = dataclasses.replace(RunConfig().model.decoder, adapter_rank=4)
    check_config(RunConfig(trainable=ADAPTERS_TRAINABLE, model=dataclasses.replace(RunConfig().model, decoder=rank)))
