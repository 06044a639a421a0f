"""Kernels in int8: what is rounded and how, and that every layer multiplies by the rounded kernel."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from tests.helpers.made_up_plans import TEXT_TO_IMAGE
from tests.helpers.small_model import model_batch, quick_jit, small_model, small_params
from uno_jax.models.apart import arranged
from uno_jax.models.quantised import placed_quantised, quantise, quantised
from uno_jax.models.unified import UnifiedModel
from uno_jax.objectives.config import ObjectiveConfig
from uno_jax.parallel.axes import on_mesh
from uno_jax.parallel.mesh import MeshConfig, cpu_mesh, make_mesh
from uno_jax.parallel.parameters import tree_shardings
from uno_jax.training.optimizer import OptimizerConfig, make_optimizer
from uno_jax.training.state import ADAPTERS_TRAINABLE, create_state, merge, partition
from uno_jax.training.step import StepConfig, make_train_step

MODEL = small_model(decoder={"adapter_rank": 2})
STEP = StepConfig(MODEL, ObjectiveConfig(caption_weight=0.25), OptimizerConfig(learning_rate=0.01), steps=9, seed=0)
LARGE = ("decoder", "vision", "connector")


def rounded(params):
    """The float32 kernels that int8 stands for, in place of all that are quantised."""
    flat = flatten_dict(quantised(params))
    for path in [path for path in flat if path[-1] == "kernel_scale"]:
        kernel = (*path[:-1], "kernel")
        flat[kernel] = flat[kernel].astype(jnp.float32) * flat.pop(path)[..., None, :]
    return unflatten_dict(flat)


@functools.cache
def predict(model):
    batch = jax.tree.map(jnp.asarray, model_batch([TEXT_TO_IMAGE]))
    noised = jax.random.normal(jax.random.key(0), (*batch.latent_index.shape, model.latent_size))

    def predictions(params):
        return UnifiedModel(model).apply({"params": params}, batch, noised, jnp.full((1, 1), 0.3), answers=True)

    return quick_jit(predictions)


def test_the_error_of_a_weight_is_at_most_half_a_step_of_its_output():
    kernel = jax.random.normal(jax.random.key(0), (3, 20, 5)) * jnp.asarray([1e-4, 1.0, 3.0, 50.0, 1e3])
    whole, scale = quantise(kernel)
    assert (whole.dtype, scale.dtype, scale.shape) == (jnp.int8, jnp.float32, (3, 5))
    np.testing.assert_allclose(scale, np.abs(kernel).max(axis=1) / 127, rtol=1e-6)
    error = np.abs(whole * scale[:, None, :] - kernel)
    assert (error <= scale[:, None, :] * 0.5001).all()
    assert (np.abs(np.asarray(whole, int)).max(axis=1) == 127).all()


def test_an_output_of_zeros_stays_zero_and_one_that_is_not_finite_is_not_hidden():
    kernel = jnp.asarray([[0.0, 1.0, jnp.nan], [0.0, 2.0, 1.0]])
    whole, scale = quantise(kernel)
    assert not whole[:, 0].any()
    assert scale[0] == 0
    assert jnp.isnan(scale[2])


def test_exactly_the_kernels_of_large_parts_are_quantised_and_not_those_of_adapters():
    params = small_params(MODEL)
    flat, before = flatten_dict(quantised(params), sep="/"), flatten_dict(params, sep="/")
    found = {path for path, leaf in flat.items() if leaf.dtype == jnp.int8}
    assert found == {
        path for path in before if path.startswith(LARGE) and path.endswith("/kernel") and "adapters" not in path
    }
    assert flat.keys() - before.keys() == {f"{path}_scale" for path in found}
    assert all(flat[path] is before[path] for path in before.keys() - found)


@pytest.mark.parametrize("unroll", [1, 2])
def test_the_model_computes_what_it_does_with_the_rounded_kernels(unroll):
    model, params = small_model(decoder={"adapter_rank": 2, "scan_unroll": unroll}), small_params(MODEL)
    found = predict(model)(arranged(quantised(params), model.decoder))
    expected = predict(MODEL)(rounded(params))
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=2e-4, atol=2e-4), found, expected)
    assert np.abs(expected.velocity - predict(MODEL)(params).velocity).max() > 2e-3  # rounding has an effect


def test_the_model_computes_the_same_on_a_mesh():
    mesh, params = make_mesh(MeshConfig(), jax.devices()[:1]), quantised(small_params(MODEL))
    on = quick_jit(on_mesh(mesh)(lambda params: predict(MODEL).__wrapped__(params).velocity))
    np.testing.assert_allclose(on(params), predict(MODEL)(params).velocity, rtol=2e-4, atol=2e-4)


def test_parameters_are_placed_in_int8_and_their_originals_deleted():
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    params = jax.device_put(small_params(MODEL), tree_shardings(small_params(MODEL), cpu_mesh()))
    expected = quantised(small_params(MODEL))
    placed = placed_quantised(params, mesh)
    jax.tree.map(np.testing.assert_array_equal, placed, expected)
    assert params["decoder"]["head"]["kernel"].is_deleted()
    assert {leaf.sharding.mesh for leaf in jax.tree.leaves(placed)} == {mesh}


def test_adapters_on_int8_weights_learn_as_on_plain_ones_and_nothing_frozen_changes():
    batch = jax.tree.map(jnp.asarray, model_batch([TEXT_TO_IMAGE]))
    step = quick_jit(make_train_step(STEP))
    losses = {}
    for name, of in (("plain", lambda frozen: frozen), ("int8", quantised)):
        trained, frozen = partition(small_params(MODEL), ADAPTERS_TRAINABLE)
        optimizer = make_optimizer(STEP.optimizer, STEP.steps)
        state = create_state(merge(trained, of(frozen)), ADAPTERS_TRAINABLE, optimizer, ema=False)
        before, found = state.frozen, []
        for _ in range(4):
            state, metrics = step(state, batch)
            found.append(float(metrics["loss"]))
        jax.tree.map(np.testing.assert_array_equal, state.frozen, before)
        losses[name] = found
    assert losses["int8"][-1] < 0.97 * losses["int8"][0]
    np.testing.assert_allclose(losses["int8"], losses["plain"], rtol=0.02)
    assert losses["int8"] != losses["plain"]
