"""Gradients of the losses by layer."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest

from tests.helpers.small_model import quick_jit
from tests.helpers.small_subject import RECORDS, small_subject
from uno_jax.inside.gradients import Gradients, measure_gradients
from uno_jax.inside.subject import SEED, encoded_batches, plans_of
from uno_jax.training.optimizer import OptimizerConfig, make_optimizer
from uno_jax.training.state import UNO_TRAINABLE, create_state
from uno_jax.training.step import StepConfig, make_gradient_probe

pytestmark = pytest.mark.usefixtures("quick_compiles")

SUBJECT = small_subject()
OBJECTIVE = SUBJECT.checkpoint.objective
LAYERS = SUBJECT.config.decoder.num_layers


@functools.cache
def measured() -> Gradients:
    """Gradients of three batches together, of which the last has a row of padding."""
    return measure_gradients(SUBJECT, encoded_batches(SUBJECT, plans_of(SUBJECT, RECORDS), 2), OBJECTIVE)


def test_norms_and_cosines_of_all_layers_together_are_those_of_the_probe_of_the_train_step():
    config = StepConfig(SUBJECT.config, OBJECTIVE, OptimizerConfig(), steps=1, seed=SEED)
    state = create_state(SUBJECT.reader.model.params, UNO_TRAINABLE, make_optimizer(config.optimizer, 1), ema=False)
    [batch] = encoded_batches(SUBJECT, plans_of(SUBJECT, RECORDS), len(RECORDS))
    _, metrics = quick_jit(make_gradient_probe(config))(state, batch)
    found = measured()
    assert set(found.total_norms) == {"flow", "caption", "visual"}
    for loss, norm in found.total_norms.items():
        np.testing.assert_allclose(norm, metrics[f"gradient_norm/{loss}"], rtol=1e-4)
    for (first, second), cosine in found.total_cosines.items():
        np.testing.assert_allclose(cosine, metrics[f"gradient_cosine/{first}_{second}"], atol=1e-4)


def test_squared_norms_of_the_layers_add_up():
    found = measured()
    for loss, norms in found.norms.items():
        assert norms.shape == (LAYERS,)
        np.testing.assert_allclose(np.sqrt(np.sum(norms**2)), found.total_norms[loss], rtol=1e-5)


def test_inner_products_of_the_layers_add_up():
    found = measured()
    for (first, second), cosines in found.cosines.items():
        inner = np.sum(cosines * found.norms[first] * found.norms[second])
        total = found.total_cosines[first, second] * found.total_norms[first] * found.total_norms[second]
        np.testing.assert_allclose(inner, total, rtol=1e-4)


def test_the_align_loss_is_left_out_of_a_model_without_its_head():
    batches = encoded_batches(SUBJECT, plans_of(SUBJECT, RECORDS), 2)
    found = measure_gradients(SUBJECT, batches, dataclasses.replace(OBJECTIVE, align_weight=1.0, anchor_weight=1.0))
    assert set(found.norms) == {"flow", "caption", "visual"}


def test_a_loss_without_tokens_is_left_out():
    batches = [
        dataclasses.replace(
            batch, **{name: np.zeros_like(getattr(batch, name)) for name in ("caption_loss", "query_loss")}
        )
        for batch in encoded_batches(SUBJECT, plans_of(SUBJECT, RECORDS), 2)
    ]
    found = measure_gradients(SUBJECT, batches, OBJECTIVE)
    assert set(found.norms) == set(found.total_norms) == {"flow"}
    assert found.cosines == {}
