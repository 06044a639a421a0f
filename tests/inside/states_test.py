"""States of noised pictures: what they are, and that nothing but the record, the layer and the time determines them."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.small_model import quick_jit
from tests.helpers.small_subject import RECORDS, small_subject
from uno_jax.attention.metadata import NOISED
from uno_jax.batch import Batch
from uno_jax.inside.states import draws_at, hidden_states, states_at, token_places
from uno_jax.inside.subject import encoded_batches, noised_only, plans_of
from uno_jax.models.unified import UnifiedModel
from uno_jax.objectives.draws import Draws

pytestmark = pytest.mark.usefixtures("quick_compiles")

SUBJECT = small_subject()
PARAMS, MODEL = SUBJECT.reader.model.params, SUBJECT.config
PLANS = [noised_only(plan, context=False) for plan in plans_of(SUBJECT, RECORDS)]
TOKENS = 4  # of every picture
TIME = 0.6


def states(rows: int = 2, plans=PLANS, numbers=None, *, time: float = TIME, layers=(0, 1, 2), tokens: int = TOKENS):
    batches = encoded_batches(SUBJECT, plans, rows, numbers)
    return states_at(SUBJECT, batches, len(plans), time, layers, tokens)


def batch_and_draws(time: float) -> tuple[Batch, Draws]:
    [batch] = jax.device_put(encoded_batches(SUBJECT, PLANS, len(PLANS)))
    return batch, draws_at(batch, time, MODEL)


def first_layers(count: int, batch, draws) -> jax.Array:
    """Residual stream of the generation expert in a model that has only the first layers."""
    config = dataclasses.replace(MODEL, decoder=dataclasses.replace(MODEL.decoder, num_layers=count))
    layers = jax.tree.map(lambda leaf: leaf[:count], PARAMS["decoder"]["layers"])
    params = {**PARAMS, "decoder": {**PARAMS["decoder"], "layers": layers}}

    def run(model, batch, draws):
        streams, _ = model.embed(batch, draws.noised, draws.latent_times)
        return model.decoder.residual_stream(streams, batch.understanding, batch.generation)

    return UnifiedModel(config).apply({"params": params}, batch, draws, method=run).generation


def test_states_are_the_input_of_the_first_layer_and_the_output_of_every_layer():
    batch, draws = batch_and_draws(TIME)
    found = quick_jit(lambda params: hidden_states(params, batch, draws, MODEL))(PARAMS)
    model, variables = UnifiedModel(MODEL), {"params": PARAMS}
    (embedded, _) = model.apply(variables, batch, draws.noised, draws.latent_times, method="embed")
    np.testing.assert_allclose(found[0], embedded.generation, atol=1e-5)
    for layer in (1, 2):
        np.testing.assert_allclose(found[layer], first_layers(layer, batch, draws), atol=2e-5)


def test_the_last_state_is_the_one_that_the_velocity_is_predicted_from():
    batch, draws = batch_and_draws(TIME)

    def velocity(model, states):
        streams, _ = model.embed(batch, draws.noised, draws.latent_times)
        return model.velocity(
            model.decoder.norm(streams._replace(generation=states)).generation, draws.noised, draws.latent_times
        )

    model, variables = UnifiedModel(MODEL), {"params": PARAMS}
    last = hidden_states(PARAMS, batch, draws, MODEL)[-1]
    expected = model.apply(variables, batch, draws.noised, draws.latent_times).velocity
    np.testing.assert_allclose(model.apply(variables, last, method=velocity), expected, atol=2e-5)


def test_the_noise_is_the_same_at_every_time():
    clean, half, noise = (np.asarray(batch_and_draws(time)[1].noised) for time in (0.0, 0.5, 1.0))
    np.testing.assert_allclose(half, (clean + noise) / 2, atol=1e-6)


def test_states_of_a_record_depend_neither_on_the_batch_nor_on_other_records():
    together = states(rows=8)
    two_at_a_time = states(rows=2)
    alone = states(rows=1, plans=[PLANS[3]], numbers=[3])
    np.testing.assert_allclose(two_at_a_time.tokens, together.tokens, atol=1e-5)
    np.testing.assert_allclose(alone.tokens[:, 0], together.tokens[:, 3], atol=1e-5)


def test_selected_layers_and_the_mean_over_tokens():
    every, last = states(), states(layers=(2,))
    np.testing.assert_allclose(last.tokens[0], every.tokens[2], atol=1e-6)
    np.testing.assert_allclose(every.pooled, every.tokens.mean(axis=2), atol=1e-5)


def test_some_tokens_are_evenly_spaced_and_the_mean_is_still_over_all():
    every, two = states(), states(tokens=2)
    np.testing.assert_allclose(two.tokens, every.tokens[:, :, [0, 3]], atol=1e-6)
    np.testing.assert_allclose(two.pooled, every.pooled, atol=1e-6)


def test_a_picture_with_few_tokens_repeats_its_last():
    [batch] = encoded_batches(SUBJECT, PLANS[:1], 2)
    real = np.flatnonzero(batch.generation.role[0] == NOISED)
    assert token_places(batch, 6).tolist() == [[*real, real[-1], real[-1]], [0] * 6]


def test_the_states_depend_on_the_prompt_only_if_it_is_visible():
    def of_prompt(prompt: str, *, context: bool):
        plans = plans_of(SUBJECT, [dataclasses.replace(RECORDS[0], prompt=prompt)])
        return states(1, [noised_only(plan, context=context) for plan in plans]).pooled[-1]

    np.testing.assert_array_equal(of_prompt("thing", context=False), of_prompt("number", context=False))
    assert np.abs(of_prompt("thing", context=True) - of_prompt("number", context=True)).max() > 1e-3


def test_pictures_at_time_one_are_only_noise():
    other = plans_of(SUBJECT, [dataclasses.replace(RECORDS[0], image=RECORDS[1].image)])
    first, second = (states(1, [noised_only(plan, context=False)], time=1.0) for plan in (PLANS[0], other[0]))
    np.testing.assert_allclose(first.tokens, second.tokens, atol=1e-6)
    assert jnp.isfinite(first.tokens).all()
