"""The unified model on made-up plans: dependencies between tokens, layout, encoders and parametrisation.

Predictions are compared to 2e-5 (float32 agreement, as with the reference). Independence is checked to 1e-6, because
hidden tokens still take part in the same sums, with weights of exactly 0.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.helpers.interleaved_decoder import interleaved_decoder
from tests.helpers.made_up_plans import (
    EDITING,
    HIDDEN,
    NAMED,
    SECOND_ROUND,
    TEXT_TO_IMAGE,
    Sample,
    latents_of,
    patches_of,
    places_of,
    plans,
    slow_mask,
    slow_sequence,
)
from tests.helpers.made_up_records import LAYOUT
from tests.helpers.small_model import CAPACITIES, model_batch, quick_jit, small_model, small_params
from uno_jax.attention.metadata import NOISED
from uno_jax.batch import REGIONS, Batch
from uno_jax.data.layout import sample_lengths
from uno_jax.data.plans import CleanLatents, NoisedTarget, Plan, Text, VitImage
from uno_jax.models.config import ModelConfig
from uno_jax.models.positions import pixels_to_float
from uno_jax.models.unified import SMALLEST_DIVISOR_TIME, Predictions, UnifiedModel
from uno_jax.models.vision import Connector, VisionEncoder
from uno_jax.objectives.draws import Draws, draw

MODEL = small_model()
params_of = functools.cache(small_params)


@functools.cache
def predictor(config: ModelConfig):
    """The compiled forward pass of a model, answers included."""
    model = UnifiedModel(config)

    @quick_jit
    def predict(params, batch: Batch, draws: Draws) -> Predictions:
        return model.apply({"params": params}, batch, draws.noised, draws.latent_times, answers=True)

    return predict


draws_of = quick_jit(functools.partial(draw, seed=0, shift=1.0, autoencoder=MODEL.autoencoder))


def three_rows(*rows) -> Batch:
    """A batch of three rows, padded with empty ones, so that one shape is compiled once."""
    return model_batch(*rows, *[()] * (3 - len(rows)))


def predict(batch: Batch, config: ModelConfig = MODEL) -> Predictions:
    return jax.device_get(predictor(config)(params_of(config), batch, draws_of(batch)))


def without_supervision(plan: Plan, *, caption: bool = True, queries: bool = True) -> Plan:
    nothing = {"caption": None} if caption else {}
    nothing |= {"query_pixels": None} if queries else {}
    return tuple(dataclasses.replace(x, **nothing) if isinstance(x, NoisedTarget) else x for x in plan)


def fits(samples: list[Plan]) -> bool:
    lengths = [sample_lengths(plan, LAYOUT) for plan in samples]
    return all(sum(x[region] for x in lengths) <= CAPACITIES[region] for region in REGIONS)


def region_samples(batch: Batch) -> dict[str, np.ndarray]:
    """Sample numbers `[rows, tokens]` of each region."""
    widths = [x.shape[1] for x in (batch.text_ids, batch.vit_image, batch.caption_ids)]
    parts = np.split(batch.understanding.sample, np.cumsum(widths), axis=1)
    return dict(zip(REGIONS, [*parts, batch.generation.sample], strict=True))


REGION_OF = {
    "velocity": "latent",
    "text_logits": "text",
    "caption_logits": "caption",
    "query_prediction": "query",
    "query_target": "query",
}


def real(batch: Batch, name: str, predictions: Predictions) -> np.ndarray:
    """A prediction without its padding tokens."""
    return getattr(predictions, name)[region_samples(batch)[REGION_OF[name]] > 0]


def close(actual, expected, tolerance: float = 2e-5):
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


mixes = settings(max_examples=25, suppress_health_check=[HealthCheck.filter_too_much])


# Supervision


@mixes
@given(row=st.lists(plans(most_items=3), min_size=1, max_size=3), caption=st.booleans())
def test_supervision_tokens_leave_the_velocity_unchanged(row, caption):
    assume(fits(row))
    batch = three_rows(row)
    supervised = predict(batch)
    alone = predict(three_rows([without_supervision(plan, caption=caption) for plan in row]))
    for name in ("velocity", "text_logits"):
        close(real(batch, name, supervised), real(batch, name, alone), 1e-6)


def test_caption_and_metaqueries_do_not_depend_on_each_other():
    batch = three_rows([SECOND_ROUND])
    both = predict(batch)
    captions = predict(three_rows([without_supervision(SECOND_ROUND, caption=False)]))
    queries = predict(three_rows([without_supervision(SECOND_ROUND, queries=False)]))
    close(real(batch, "caption_logits", captions), real(batch, "caption_logits", both), 1e-6)
    close(real(batch, "query_prediction", queries), real(batch, "query_prediction", both), 1e-6)


OTHER_PROMPT = (Text(ids=(70, 80, 90)), *TEXT_TO_IMAGE[1:])
OTHER_SOURCE = (
    CleanLatents(pixels=latents_of(1, 2, seed=12)),
    VitImage(pixels=patches_of(1, 2, seed=12)),
    Text(ids=(70, 80)),
    *EDITING[3:],
)
one_layer = small_model(decoder={"num_layers": 1})
each_context = pytest.mark.parametrize(
    ("plan", "other"),
    [(TEXT_TO_IMAGE, OTHER_PROMPT), (EDITING, OTHER_SOURCE)],
    ids=["prompt", "source and instruction"],
)


def blinded(batch: Batch, latents: bool = True, delimiters: bool = True) -> Batch:
    """Hides the context from the latents, the delimiters, or both of each noised block. They still see each other."""

    def hide(metadata, chosen):
        return metadata._replace(last_visible=np.where((metadata.role == NOISED) & chosen, -1, metadata.last_visible))

    return dataclasses.replace(
        batch, understanding=hide(batch.understanding, delimiters), generation=hide(batch.generation, latents)
    )


def supervision_change(first: Batch, second: Batch, config: ModelConfig) -> tuple[float, float]:
    """Maximum difference of two batches in caption logits and in metaquery predictions."""
    a, b = predict(first, config), predict(second, config)

    def change(name: str) -> float:
        return float(np.max(np.abs(real(first, name, a) - real(second, name, b))))

    return change("caption_logits"), change("query_prediction")


@each_context
def test_in_one_layer_supervision_cannot_depend_on_the_context(plan, other):
    """The keys and values of the noised block in the first layer are computed before any attention."""
    assert max(supervision_change(three_rows([plan]), three_rows([other]), one_layer)) < 1e-6


@each_context
def test_in_two_layers_supervision_depends_on_the_context(plan, other):
    assert min(supervision_change(three_rows([plan]), three_rows([other]), MODEL)) > 1e-3


@each_context
def test_supervision_depends_on_the_context_through_the_noised_block_only(plan, other):
    assert max(supervision_change(blinded(three_rows([plan])), blinded(three_rows([other])), MODEL)) < 1e-6


@each_context
@pytest.mark.parametrize("part", ["latents", "delimiters"])
def test_latents_and_delimiters_each_carry_the_context(plan, other, part):
    blind = {"latents": part != "latents", "delimiters": part != "delimiters"}
    assert (
        min(supervision_change(blinded(three_rows([plan]), **blind), blinded(three_rows([other]), **blind), MODEL))
        > 1e-3
    )


OTHER_HIDDEN = (HIDDEN[0], Text(ids=(70, 80, 90)), HIDDEN[2])


def test_hidden_supervision_does_not_depend_on_the_prompt():
    assert max(supervision_change(three_rows([HIDDEN]), three_rows([OTHER_HIDDEN]), MODEL)) < 1e-6


def test_hidden_supervision_is_that_of_a_dropped_prompt():
    hidden, dropped = three_rows([HIDDEN]), three_rows([TEXT_TO_IMAGE[1:]])
    first, second = predict(hidden), predict(dropped)
    for name in ("caption_logits", "query_prediction"):
        close(real(hidden, name, first), real(dropped, name, second), 1e-6)


def test_hidden_supervision_leaves_the_velocity_unchanged():
    hidden, usual = three_rows([HIDDEN]), three_rows([TEXT_TO_IMAGE])
    close(predict(hidden).velocity[hidden.latent_loss], predict(usual).velocity[usual.latent_loss], 1e-6)


# Layout


@mixes
@given(row=st.lists(plans(most_items=3) | st.sampled_from(NAMED), min_size=2, max_size=2))
def test_a_packed_sample_has_the_predictions_of_the_sample_alone(row):
    """Rows 0 and 1 contain one sample each, row 2 contains both."""
    assume(fits(row))
    samples = [Sample(plan, occurrence=5 + 7 * i) for i, plan in enumerate(row)]
    batch = three_rows(samples[:1], samples[1:], samples)
    draws = jax.device_get(draws_of(batch))
    predictions = predict(batch)
    regions = region_samples(batch)
    for region, values in (
        ("latent", draws.latent_times),
        ("latent", draws.noise),
        ("latent", draws.latents),
        ("caption", draws.caption_times),
        ("query", draws.query_times),
        *((region, getattr(predictions, name)) for name, region in REGION_OF.items()),
    ):
        for number in (1, 2):
            alone = values[number - 1][regions[region][number - 1] == 1]
            packed = values[2][regions[region][2] == number]
            close(packed, alone)


@quick_jit
def final_states(params, batch: Batch, draws: Draws):
    """Inputs and outputs of the decoder with both buffers concatenated: `[B, U + G, D]` twice."""
    model = UnifiedModel(MODEL)
    streams, _ = model.apply({"params": params}, batch, draws.noised, draws.latent_times, method="embed")
    hidden = model.apply({"params": params}, method=lambda m: m.decoder(streams, batch.understanding, batch.generation))
    return tuple(jax.numpy.concatenate(x, axis=1) for x in (streams, hidden))


@settings(max_examples=12, suppress_health_check=[HealthCheck.filter_too_much])
@given(plan=plans(most_items=3) | st.sampled_from(NAMED))
def test_two_buffers_equal_one_interleaved_sequence(plan):
    assume(fits([plan]))
    tokens = slow_sequence(plan)
    assume(tokens)
    batch = three_rows([plan])
    params = params_of(MODEL)
    before, after = (x[0, places_of(plan, batch)] for x in jax.device_get(final_states(params, batch, draws_of(batch))))
    expected = interleaved_decoder(
        params["decoder"],
        MODEL.decoder,
        before,
        experts=["generation" if token.region == "latent" else "understanding" for token in tokens],
        positions=[token.position for token in tokens],
        mask=slow_mask(plan),
    )
    close(after, expected)


# Encoders and parametrisation


def test_precomputed_vision_features_give_the_predictions_of_pixels():
    batch = three_rows([EDITING, SECOND_ROUND], [NAMED[3]])
    params = {"params": params_of(MODEL)["vision"]}
    encode = quick_jit(functools.partial(VisionEncoder(MODEL.vision).apply, params))
    features = dataclasses.replace(
        batch,
        vit_patches=encode(pixels_to_float(batch.vit_patches), batch.vit_positions, batch.vit_image),
        target_patches=encode(pixels_to_float(batch.target_patches), batch.target_positions, batch.target_image),
    )
    pixels, precomputed = predict(batch), predict(features)
    for name in REGION_OF:
        close(real(batch, name, precomputed), real(batch, name, pixels))


def test_metaqueries_can_predict_the_output_of_the_connector():
    config = dataclasses.replace(MODEL, metaquery_target="connector")
    batch = three_rows([EDITING])
    connected = predict(batch, config)
    before = predict(batch).query_target
    connector = Connector(MODEL.decoder.hidden_size)
    close(connected.query_target, connector.apply({"params": params_of(config)["connector"]}, jnp.asarray(before)))
    assert connected.query_prediction.shape == connected.query_target.shape


X0 = dataclasses.replace(MODEL, prediction="x0")


def test_an_x0_model_that_knows_the_latents_predicts_the_velocity():
    """All latents are one constant, and so is the bias of the output projection."""
    batch = three_rows([SECOND_ROUND])
    draws = jax.device_get(draws_of(batch))
    draws = draws._replace(latents=np.full_like(draws.latents, 0.3))
    output = {"kernel": np.zeros_like(params_of(X0)["latent_out"]["kernel"]), "bias": np.full(MODEL.latent_size, 0.3)}
    params = {**params_of(X0), "latent_out": jax.tree.map(np.float32, output)}
    velocity = predictor(X0)(params, batch, draws).velocity
    late = batch.latent_loss & (draws.latent_times > SMALLEST_DIVISOR_TIME)
    assert late.any()
    close(velocity[late], (draws.noise - draws.latents)[late])


def test_the_output_is_a_velocity_or_an_x0():
    """With the same weights, the velocity of one model is the x_0 of the other, and x_t = x_0 + t * velocity."""
    batch = three_rows([TEXT_TO_IMAGE, EDITING])
    draws = jax.device_get(draws_of(batch))
    output, velocity = predict(batch).velocity, predict(batch, X0).velocity
    t = np.maximum(draws.latent_times, SMALLEST_DIVISOR_TIME)[..., None]
    close(output + t * velocity, draws.noised)


def test_padding_gives_finite_predictions():
    for name, values in predict(three_rows([TEXT_TO_IMAGE]))._asdict().items():
        assert values is None or np.isfinite(values).all(), name


def test_an_empty_region_is_allowed():
    """A batch with flow matching only has empty caption and metaquery regions."""
    capacities = {**CAPACITIES, "caption": 0, "query": 0}
    plan = without_supervision(TEXT_TO_IMAGE)
    batch = model_batch([plan], capacities=capacities)
    predictions = predict(batch)
    latents = batch.generation.sample[0] > 0
    expected = predict(three_rows([plan])).velocity[0, latents]
    close(predictions.velocity[0, latents], expected)
    assert predictions.query_prediction.shape[1] == predictions.caption_logits.shape[1] == 0
