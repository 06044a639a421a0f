"""The head of the align loss: its inputs, its targets, and what it leaves unchanged."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.made_up_plans import EDITING, TEXT_TO_IMAGE, UNDERSTANDING, latents_of
from tests.helpers.made_up_records import LAYOUT
from tests.helpers.small_model import model_batch, quick_jit, small_model, small_params
from uno_jax.batch import Batch
from uno_jax.data.plans import NoisedTarget
from uno_jax.data.transforms import patchify, resize
from uno_jax.models.config import layout_of, training_layout
from uno_jax.models.positions import pixels_to_float
from uno_jax.models.unified import Predictions, UnifiedModel
from uno_jax.models.vision import VisionEncoder
from uno_jax.objectives.draws import draw
from uno_jax.parallel.axes import MESH_AXES
from uno_jax.planning.residuals import saved_activation_bytes
from uno_jax.training.initialise import abstract_params

LAYERS = 3
MODEL = small_model(decoder={"num_layers": LAYERS}, align_layer=2)
ALIGNED = training_layout(MODEL)


def aligned_batch(*rows) -> Batch:
    return model_batch(*rows, layout=ALIGNED)


def predict(batch: Batch, *, align: bool) -> Predictions:
    @quick_jit
    def run(params, batch: Batch) -> Predictions:
        draws = draw(batch, 0, 1.0, MODEL.autoencoder)
        return UnifiedModel(MODEL).apply({"params": params}, batch, draws.noised, draws.latent_times, align=align)

    return jax.device_get(run(small_params(MODEL), batch))


def test_only_training_samples_of_a_model_with_the_head_have_patches_for_it():
    assert training_layout(MODEL).align
    assert not layout_of(MODEL).align
    assert not training_layout(small_model()).align


def test_the_target_of_a_latent_token_is_the_vision_feature_at_its_place():
    picture = latents_of(2, 2, seed=1)
    batch = aligned_batch([UNDERSTANDING, TEXT_TO_IMAGE], [EDITING])
    target = predict(batch, align=True).align_target[0, :4]
    side = 2 * LAYOUT.vit_patch_size
    patches = jnp.asarray(patchify(resize(picture, side, side), LAYOUT.vit_patch_size))
    positions = jnp.array([0, 1, LAYOUT.vit_table_side, LAYOUT.vit_table_side + 1])
    encode = functools.partial(VisionEncoder(MODEL.vision).apply, {"params": small_params(MODEL)["vision"]})
    expected = encode(pixels_to_float(patches)[None], positions[None], jnp.ones((1, 4), int))
    np.testing.assert_allclose(target, expected[0], rtol=2e-5, atol=2e-5)


def test_the_loss_changes_no_other_output():
    batch = aligned_batch([UNDERSTANDING, TEXT_TO_IMAGE], [EDITING])
    with_head, without = predict(batch, align=True), predict(batch, align=False)
    assert without.align_prediction is without.align_target is None
    for name in ("velocity", "caption_logits", "query_prediction", "query_target"):
        np.testing.assert_allclose(getattr(with_head, name), getattr(without, name), rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("decoder", [{}, {"remat": "full"}, {"scan_unroll": LAYERS}])
@pytest.mark.parametrize("layer", [1, LAYERS])
def test_the_head_reads_the_states_after_its_layer(decoder, layer):
    model = small_model(decoder={"num_layers": LAYERS} | decoder, align_layer=layer)
    batch = aligned_batch([EDITING])

    @quick_jit
    def run(params, batch: Batch):
        draws = draw(batch, 0, 1.0, model.autoencoder)

        def states(module: UnifiedModel):
            streams, _ = module.embed(batch, draws.noised, draws.latent_times)
            return module.decoder.with_states(streams, batch.understanding, batch.generation, layer)[1]

        return UnifiedModel(model).apply({"params": params}, mutable=["intermediates"], method=states)

    kept, sown = run(small_params(model), batch)
    expected = sown["intermediates"]["decoder"]["layers"]["hidden"][0].generation[layer - 1]
    np.testing.assert_allclose(kept, expected, rtol=1e-6)


def test_the_states_of_one_layer_are_saved_and_not_those_of_all():
    """What the loss saves for the backward pass does not grow with the number of layers."""
    batch = aligned_batch([TEXT_TO_IMAGE])

    def saved(layers: int, *, align: bool) -> int:
        model = small_model(decoder={"num_layers": layers, "remat": "full"}, align_layer=layers // 2)

        def loss(params, batch: Batch) -> jax.Array:
            shape = batch.latent_index.shape
            latents, times = jnp.zeros((*shape, model.latent_size)), jnp.ones(shape)
            predictions = UnifiedModel(model).apply({"params": params}, batch, latents, times, align=align)
            return jnp.sum(predictions.velocity) + (jnp.sum(predictions.align_prediction) if align else 0.0)

        jaxpr = jax.make_jaxpr(jax.grad(loss))(abstract_params(model), batch)
        return saved_activation_bytes(jaxpr, dict.fromkeys(MESH_AXES, 1))

    few, many = (saved(layers, align=True) - saved(layers, align=False) for layers in (4, 12))
    assert few == many


def test_the_head_of_another_layer_has_the_same_parameters():
    other = dataclasses.replace(MODEL, align_layer=1)
    shapes = [jax.tree.map(np.shape, small_params(model)["align_head"]) for model in (MODEL, other)]
    width = MODEL.decoder.hidden_size
    assert shapes[0] == shapes[1]
    assert shapes[0]["fc2"]["kernel"] == (width, MODEL.vision.hidden_size)


def test_a_picture_may_have_any_grid():
    tall = (NoisedTarget(pixels=latents_of(2, 1, seed=3)),)
    targets = predict(aligned_batch([tall]), align=True).align_target
    assert np.isfinite(targets).all()
