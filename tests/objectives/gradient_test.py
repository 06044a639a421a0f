"""Gradients of the objective on made-up plans: which parameters they reach, their norms, and their invariances.

Tensors are compared by relative L2 distance, to 1e-4 as with the reference. The bias of the vision encoder's keys is
skipped, because its gradient is mathematically zero.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.made_up_plans import (
    EDITING,
    NAMED,
    RECONSTRUCTION,
    SECOND_ROUND,
    TEXT_TO_IMAGE,
    UNDERSTANDING,
    Sample,
)
from tests.helpers.small_model import model_batch, quick_jit, small_model, small_params
from uno_jax.batch import Batch
from uno_jax.models.config import ModelConfig, training_layout
from uno_jax.objectives.config import BalanceConfig, ObjectiveConfig
from uno_jax.objectives.losses import loss_counts, measured_losses, reduce_losses
from uno_jax.training.initialise import abstract_params
from uno_jax.training.optimizer import OptimizerConfig, make_optimizer
from uno_jax.training.state import UNO_TRAINABLE, TrainState, create_state
from uno_jax.training.step import StepConfig, draw_for, loss_weights, losses_of, make_gradient_probe

WEIGHTS = {"flow": 1.0, "caption": 0.25, "visual": 0.5, "answer": 1.0}


PLAIN = small_model(decoder={"num_layers": 3}, vision={"num_layers": 3})


@functools.cache
def gradients_of(model: ModelConfig):
    """Compiles (batch of three rows, weight of each loss) -> reduced losses, and gradient of their weighted sum.

    The gradient is with respect to every parameter.
    """
    config = StepConfig(model, ObjectiveConfig(answer_weight=1.0), OptimizerConfig(), steps=1, seed=0)
    params = small_params(model)

    def reduced(params, batch: Batch):
        losses = losses_of(params, batch, draw_for(batch, config), config)
        return reduce_losses(losses, loss_counts(batch), config.objective)

    @quick_jit
    def run(batch: Batch, weights: dict[str, jax.Array]):
        losses, pull_back = jax.vjp(lambda params: reduced(params, batch), params)
        return losses, pull_back(weights)[0]

    def call(batch: Batch, **weights: float):
        losses, gradient = run(batch, {name: np.float32(weights.get(name, 0.0)) for name in WEIGHTS})
        return jax.device_get(losses), {"/".join(k): v for k, v in flatten_dict(jax.device_get(gradient)).items()}

    return call


def assert_same_gradient(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray]):
    for path, values in expected.items():
        if path != "vision/layers/key/bias":
            distance, norm = np.linalg.norm(actual[path] - values), np.linalg.norm(values)
            assert distance <= 1e-4 * norm, f"{path} differs by {distance:.3g} of a norm of {norm:.3g}"


# Parameters that a loss reaches

LAST_LAYER = ("attention_norm/scale", "key/kernel", "key/bias", "key_norm/scale", "value/kernel", "value/bias")
"""Parameters of the generation expert's last layer that supervision reaches: only keys and values are read."""


def gradient_of(loss: str, *plans) -> dict[str, np.ndarray]:
    return gradients_of(PLAIN)(model_batch(plans, [], []), **{loss: 1.0})[1]


def reached_by(loss: str, *plans, among: tuple[str, ...] = ("",)) -> set[str]:
    """Parameters with a nonzero gradient, among those with a path that starts with one of `among`."""
    return {path for path, leaf in gradient_of(loss, *plans).items() if path.startswith(among) and np.any(leaf)}


@pytest.mark.parametrize("loss", ["caption", "visual"])
def test_supervision_reaches_every_layer_of_the_generation_expert(loss):
    expert = "decoder/layers/generation/"
    gradient = gradient_of(loss, TEXT_TO_IMAGE)
    leaves = {path.removeprefix(expert): leaf for path, leaf in gradient.items() if path.startswith(expert)}
    assert len(leaves) == 14
    for name, leaf in leaves.items():
        norms = [np.linalg.norm(layer) for layer in leaf]
        assert min(norms[:-1]) > 0, name
        assert (norms[-1] > 0) if name in LAST_LAYER else (norms[-1] == 0), name


@pytest.mark.parametrize(("loss", "own"), [("caption", set()), ("visual", {"metaqueries"})])
def test_supervision_reaches_the_inputs_of_the_generation_expert_and_not_its_outputs(loss, own):
    reached = reached_by(loss, TEXT_TO_IMAGE, among=UNO_TRAINABLE)
    assert {path.split("/")[0] for path in reached} == {"decoder", "latent_in", "timestep_embedder"} | own
    assert not any(path.startswith("decoder/norm") for path in reached)


def test_the_flow_loss_reaches_all_trainable_parameters_except_metaqueries():
    trainable = {path for path in gradient_of("flow", TEXT_TO_IMAGE) if path.startswith(UNO_TRAINABLE)}
    reached = reached_by("flow", TEXT_TO_IMAGE, among=UNO_TRAINABLE)
    assert {path.split("/")[0] for path in trainable - reached} == {"metaqueries"}


def test_metaquery_rows_without_a_patch_get_no_gradient():
    table = gradient_of("visual", TEXT_TO_IMAGE)["metaqueries/table"]
    assert np.any(table, axis=1).tolist() == [True, True, False, False]


def test_the_targets_of_metaqueries_carry_no_gradient():
    """The vision encoder sees this image only in the targets of the metaqueries."""
    assert not reached_by("visual", TEXT_TO_IMAGE, among=("vision", "connector"))


def test_answers_reach_the_understanding_expert_and_the_vision_encoder_only():
    reached = reached_by("answer", UNDERSTANDING)
    assert {"decoder/head/kernel", "decoder/embedding", "connector/fc1/kernel", "vision/position_table"} <= reached
    assert not any("generation" in path for path in reached)


ALIGN_LAYER = 2


@functools.cache
def align_gradient():
    """Compiles (batch of a row) -> gradient of the align loss with respect to every parameter."""
    model = small_model(decoder={"num_layers": 3}, align_layer=ALIGN_LAYER)
    config = StepConfig(model, ObjectiveConfig(align_weight=1.0), OptimizerConfig(), steps=1, seed=0)

    def loss(params, batch: Batch):
        losses = losses_of(params, batch, draw_for(batch, config), config)
        return reduce_losses(losses, loss_counts(batch), config.objective)["align"]

    gradient = quick_jit(jax.grad(loss))

    def call(plan) -> dict[str, np.ndarray]:
        batch = model_batch([plan], layout=training_layout(model))
        return flatten_dict(jax.device_get(gradient(small_params(model), batch)), sep="/")

    return call


def test_the_align_loss_reaches_its_head_and_the_generation_expert_up_to_its_layer():
    gradient = align_gradient()(EDITING)
    parts = {path.split("/")[0] for path, leaf in gradient.items() if np.any(leaf) and path.startswith(UNO_TRAINABLE)}
    assert parts == {"decoder", "latent_in", "timestep_embedder", "align_head"}
    for path in (path for path in gradient if path.startswith("decoder/layers/generation")):
        assert [bool(np.any(layer)) for layer in gradient[path]] == [True] * ALIGN_LAYER + [False], path


def test_the_targets_of_the_align_loss_carry_no_gradient():
    """The vision encoder sees this image only in the targets."""
    gradient = align_gradient()(TEXT_TO_IMAGE)
    assert not any(np.any(leaf) for path, leaf in gradient.items() if path.startswith(("vision", "connector")))


def test_the_align_loss_is_measured_and_balanced_like_the_other_supervision():
    model = small_model(align_layer=1)
    objective = ObjectiveConfig(balance=BalanceConfig(align=0.25))
    config = StepConfig(model, objective, OptimizerConfig(), steps=1, seed=0)
    optimizer = make_optimizer(config.optimizer, 1)
    state = create_state(small_params(model), UNO_TRAINABLE, optimizer, ema=False, measured=measured_losses(objective))
    batch = model_batch([TEXT_TO_IMAGE], layout=training_layout(model))
    state, metrics = quick_jit(make_gradient_probe(config))(state, batch)
    weighted = loss_weights(state.gradient_norms, objective)["align"] * metrics["gradient_norm/align"]
    np.testing.assert_allclose(weighted, 0.25 * metrics["gradient_norm/flow"], rtol=1e-5)
    assert {"gradient_cosine/flow_align", "gradient_cosine/caption_align"} <= metrics.keys()


# Gradient norms

FRACTIONS = {"caption": 0.5, "visual": 0.125}
PROBED = StepConfig(
    PLAIN, ObjectiveConfig(answer_weight=1.0, balance=BalanceConfig(**FRACTIONS, decay=0.75)), OptimizerConfig(), 1, 0
)


@functools.cache
def probe():
    return quick_jit(make_gradient_probe(PROBED))


def new_state() -> TrainState:
    return create_state(small_params(PLAIN), UNO_TRAINABLE, make_optimizer(PROBED.optimizer, 1), ema=False)


def into_the_expert(loss: str, *plans) -> np.ndarray:
    """Gradient of a loss with respect to the generation expert's layers, as one vector."""
    gradient = gradient_of(loss, *plans)
    return np.concatenate([gradient[path].ravel() for path in sorted(gradient) if "layers/generation" in path])


def test_the_probe_measures_gradient_norms_of_the_generation_expert_and_their_cosines():
    gradients = {loss: into_the_expert(loss, SECOND_ROUND) for loss in ("flow", "caption", "visual")}
    _, metrics = probe()(new_state(), model_batch([SECOND_ROUND], [], []))
    for name, gradient in gradients.items():
        np.testing.assert_allclose(metrics[f"gradient_norm/{name}"], np.linalg.norm(gradient), rtol=1e-4)
    for first, second in itertools.combinations(gradients, 2):
        a, b = gradients[first], gradients[second]
        cosine = a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
        np.testing.assert_allclose(metrics[f"gradient_cosine/{first}_{second}"], cosine, atol=1e-4)


def test_balanced_weights_scale_the_gradient_norm_to_a_fraction_of_that_of_the_flow_loss():
    state, metrics = probe()(new_state(), model_batch([SECOND_ROUND], [], []))
    weights = loss_weights(state.gradient_norms, PROBED.objective)
    for name, fraction in FRACTIONS.items():
        weighted = weights[name] * metrics[f"gradient_norm/{name}"]
        np.testing.assert_allclose(weighted, fraction * metrics["gradient_norm/flow"], rtol=1e-5)


def test_a_second_measurement_updates_the_estimate_with_decay():
    first, of_first = probe()(new_state(), model_batch([SECOND_ROUND], [], []))
    second, of_second = probe()(first, model_batch([EDITING], [], []))
    for name, norm in second.gradient_norms.items():
        expected = 0.75 * of_first[f"gradient_norm/{name}"] + 0.25 * of_second[f"gradient_norm/{name}"]
        np.testing.assert_allclose(norm, expected, rtol=1e-5)


def test_a_loss_without_tokens_keeps_its_estimate():
    before, _ = probe()(new_state(), model_batch([SECOND_ROUND], [], []))
    after, _ = probe()(before, model_batch([RECONSTRUCTION], [], []))
    assert after.gradient_norms["caption"] == before.gradient_norms["caption"]
    assert after.gradient_norms["visual"] == before.gradient_norms["visual"]
    assert after.gradient_norms["flow"] != before.gradient_norms["flow"]


def test_a_non_finite_measurement_keeps_the_estimates():
    before, _ = probe()(new_state(), model_batch([SECOND_ROUND], [], []))
    batch = model_batch([SECOND_ROUND], [], [])
    batch.latent_moments[0, 0] = np.nan
    after, _ = probe()(before, batch)
    assert jax.device_get(after.gradient_norms) == jax.device_get(before.gradient_norms)


def test_the_probe_measures_the_same_with_microbatches():
    """The tolerance is that of float32 sums in another order."""
    batch = model_batch([SECOND_ROUND], [EDITING], [TEXT_TO_IMAGE], [RECONSTRUCTION])
    whole, of_whole = probe()(new_state(), batch)
    accumulating = dataclasses.replace(PROBED, optimizer=OptimizerConfig(accumulation=2))
    parts, of_parts = quick_jit(make_gradient_probe(accumulating))(new_state(), batch)
    assert of_parts.keys() == of_whole.keys()
    for name, value in of_whole.items():
        np.testing.assert_allclose(of_parts[name], value, rtol=1e-4, atol=1e-5, err_msg=name)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), parts.gradient_norms, whole.gradient_norms)


def test_the_probe_needs_less_memory_with_microbatches():
    batch = model_batch([SECOND_ROUND], [EDITING], [TEXT_TO_IMAGE], [RECONSTRUCTION])

    def temporaries(accumulation: int) -> int:
        config = dataclasses.replace(PROBED, optimizer=OptimizerConfig(accumulation=accumulation))
        compiled = jax.jit(make_gradient_probe(config)).lower(new_state(), batch).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporaries(4) < 0.5 * temporaries(1)


def test_the_probe_changes_nothing_but_the_estimates():
    before = new_state()
    after, _ = probe()(before, model_batch([SECOND_ROUND], [], []))
    same = dataclasses.replace(after, gradient_norms=before.gradient_norms)
    jax.tree.map(np.testing.assert_array_equal, same, before)


# Invariances


@settings(max_examples=10)
@given(order=st.permutations(range(len(NAMED))))
def test_a_packed_row_has_the_losses_and_gradient_of_unpacked_rows(order):
    """The order in the row does not matter, because random draws belong to samples."""
    samples = [Sample(NAMED[i], occurrence=i) for i in order[:3]]
    run = gradients_of(PLAIN)
    packed_losses, packed = run(model_batch(samples[::-1], [], []), **WEIGHTS)
    losses, alone = run(model_batch(*([sample] for sample in samples)), **WEIGHTS)
    for name in losses:
        np.testing.assert_allclose(packed_losses[name], losses[name], rtol=1e-5, err_msg=name)
    assert_same_gradient(packed, alone)


SETTINGS = {
    "two layers an iteration": {"scan_unroll": 2},
    "no loop, products kept": {"scan_unroll": 3, "remat": "dots"},
    "nothing kept": {"remat": "full"},
    "attention by kernel, its output kept": {"attention": "kernel", "remat": "save_attention"},
    "attention by kernel, projections kept": {"attention": "kernel", "remat": "save_projections"},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_unroll_rematerialisation_and_attention_change_neither_losses_nor_gradients(name):
    both = {"num_layers": 3, **SETTINGS[name]}
    batch = model_batch([TEXT_TO_IMAGE, UNDERSTANDING], [EDITING], [SECOND_ROUND])
    expected_losses, expected = gradients_of(PLAIN)(batch, **WEIGHTS)
    losses, gradient = gradients_of(small_model(decoder=both, vision=both))(batch, **WEIGHTS)
    for loss in losses:
        np.testing.assert_allclose(losses[loss], expected_losses[loss], rtol=1e-6, err_msg=loss)
    assert_same_gradient(gradient, expected)


@pytest.mark.parametrize("name", SETTINGS)
def test_unroll_rematerialisation_and_attention_do_not_change_a_checkpoint(name):
    both = {"num_layers": 3, **SETTINGS[name]}
    assert abstract_params(small_model(decoder=both, vision=both)) == abstract_params(PLAIN)
