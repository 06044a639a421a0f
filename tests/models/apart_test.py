"""Parameters kept layer by layer: the same model, the same sown arrays, the same checkpoint."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.made_up_plans import TEXT_TO_IMAGE
from tests.helpers.small_model import model_batch, quick_jit, small_model, small_params
from uno_jax.models.apart import arranged, is_apart, stacked
from uno_jax.models.unified import UnifiedModel
from uno_jax.objectives.config import ObjectiveConfig
from uno_jax.parallel.mesh import MeshConfig, make_mesh
from uno_jax.parallel.parameters import with_shardings
from uno_jax.training.checkpoints import Checkpoints, restore_state
from uno_jax.training.initialise import abstract_params
from uno_jax.training.optimizer import OptimizerConfig, make_optimizer
from uno_jax.training.state import UNO_TRAINABLE, TrainState, create_state
from uno_jax.training.step import StepConfig, make_train_step
from uno_jax.training.stored_trees import CHECKSUMS, CHECKSUMS_FILE

LOOP = small_model()
UNROLLED = small_model(decoder={"scan_unroll": 2})
OPTIMIZER = OptimizerConfig(ema_decay=0.9)


def new_state(params) -> TrainState:
    return create_state(params, UNO_TRAINABLE, make_optimizer(OPTIMIZER, 9), ema=True)


@functools.cache
def step_of(model):
    objective = ObjectiveConfig(caption_weight=0.25, visual_weight=0.5)
    return quick_jit(make_train_step(StepConfig(model, objective, OPTIMIZER, steps=9, seed=0)))


def assert_equal(actual, expected, **tolerance):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(functools.partial(np.testing.assert_allclose, **tolerance), actual, expected)


def test_only_a_decoder_without_a_loop_keeps_layers_apart():
    params = small_params(UNROLLED)
    assert arranged(params, LOOP.decoder) is params
    kernel = arranged(params, UNROLLED.decoder)["decoder"]["layers"]["generation"]["query"]["kernel"]
    assert is_apart(kernel)
    assert [x.shape for x in kernel.arrays] == [(32, 32)] * 2


def test_stacking_undoes_it_for_arrays_and_for_shapes_with_shardings():
    params = small_params(UNROLLED)
    assert_equal(stacked(arranged(params, UNROLLED.decoder)), params, rtol=0)
    shapes = with_shardings(abstract_params(UNROLLED), make_mesh(MeshConfig(), jax.devices()[:1]))
    assert stacked(arranged(shapes, UNROLLED.decoder)) == shapes


def test_every_array_is_deleted_once_it_is_split_if_asked():
    params = jax.tree.map(jnp.copy, small_params(UNROLLED))
    kept = arranged(params, UNROLLED.decoder, free=True)
    assert params["decoder"]["layers"]["generation"]["query"]["kernel"].is_deleted()
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(kept))


def test_the_axes_of_a_layer_are_those_of_the_stacked_parameter_without_the_first():
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    shapes = abstract_params(UNROLLED)
    apart = with_shardings(arranged(shapes, UNROLLED.decoder), mesh)
    assert jax.tree.leaves(apart) == jax.tree.leaves(arranged(with_shardings(shapes, mesh), UNROLLED.decoder))


@pytest.mark.parametrize("remat", ["none", "save_projections"])
def test_a_train_step_computes_the_same(remat):
    model = dataclasses.replace(UNROLLED, decoder=dataclasses.replace(UNROLLED.decoder, remat=remat))
    batch, params = model_batch([TEXT_TO_IMAGE]), small_params(LOOP)
    expected, of_loop = step_of(LOOP)(new_state(params), batch)
    found, metrics = step_of(model)(new_state(arranged(params, model.decoder)), batch)
    assert_equal(metrics, of_loop, rtol=1e-5, atol=1e-7)
    assert_equal(stacked(found).trainable, expected.trainable, rtol=1e-5, atol=1e-6)


def test_reading_sows_the_same_keys_values_and_states():
    batch = model_batch([TEXT_TO_IMAGE])

    @quick_jit
    def read(params, batch):
        shape = batch.latent_index.shape
        latents, times = jnp.zeros((*shape, LOOP.latent_size)), jnp.zeros(shape)
        collections = ["cache", "intermediates"]
        return UnifiedModel(LOOP).apply({"params": params}, batch, latents, times, method="read", mutable=collections)

    params = small_params(LOOP)
    assert_equal(read(arranged(params, UNROLLED.decoder), batch), read(params, batch), rtol=1e-5, atol=1e-5)


def test_a_checkpoint_is_stacked_and_restores_to_either_form(tmp_path):
    params = small_params(UNROLLED)
    states = {"stacked": new_state(params), "apart": new_state(arranged(params, UNROLLED.decoder))}
    checkpoints = Checkpoints(tmp_path, keep=2, assets={})
    for step, state in enumerate(states.values()):
        checkpoints.save(step, state, {"shard": {"next": 3}})
    checkpoints.wait()
    checkpoints.close()
    first, second = ((tmp_path / name / CHECKSUMS / CHECKSUMS_FILE).read_bytes() for name in ("0", "1"))
    assert first == second
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    for saved in ("0", "1"):
        for state in states.values():
            assert_equal(restore_state(tmp_path / saved, with_shardings(state, mesh))[0], state, rtol=0)


def test_a_compiled_step_copies_no_slice_of_stacked_weights():
    """No array of the program has an axis of layers, forward, backward or in the update."""
    batch, params = model_batch([TEXT_TO_IMAGE]), small_params(LOOP)
    state = new_state(arranged(params, UNROLLED.decoder))
    text = step_of(UNROLLED).lower(state, batch).compile().as_text()
    assert "f32[2,32,48]" in step_of(LOOP).lower(new_state(params), batch).compile().as_text()
    assert "f32[2,32,48]" not in text
