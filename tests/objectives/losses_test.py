"""Losses against values by hand, their reduction, metrics, and random draws."""

from __future__ import annotations

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.made_up_plans import EDITING, NAMED, SECOND_ROUND, TEXT_TO_IMAGE, UNDERSTANDING, Sample
from tests.helpers.made_up_records import LAYOUT
from tests.helpers.small_model import model_batch, quick_jit, small_model
from uno_jax.batch import TASKS, Batch
from uno_jax.models.config import AutoencoderConfig
from uno_jax.models.unified import Predictions
from uno_jax.objectives.breakdown import TIME_BINS, loss_sums
from uno_jax.objectives.config import BalanceConfig, ObjectiveConfig
from uno_jax.objectives.distances import cross_entropy, visual_distance
from uno_jax.objectives.draws import Draws, draw, shifted_time
from uno_jax.objectives.losses import (
    LOSSES,
    SUPERVISION,
    TokenLosses,
    active_losses,
    fixed_weights,
    loss_counts,
    measured_losses,
    needs,
    reduce_losses,
    token_losses,
    total_loss,
)

AUTOENCODER = small_model().autoencoder


# One token


@pytest.mark.parametrize(
    ("kind", "prediction", "target", "expected"),
    [
        ("cosine", [3.0, 4.0], [3.0, 4.0], 0.0),
        ("cosine", [2.0, 0.0], [3.0, 4.0], 1 - 3 / 5),
        ("cosine", [-1.0, 0.0], [5.0, 0.0], 2.0),
        ("mse", [1.0, 4.0], [0.0, 2.0], (1 + 4) / 2),
        ("smooth_l1", [0.5, 3.0], [0.0, 0.0], (0.5 * 0.5**2 + (3 - 0.5)) / 2),
    ],
)
def test_visual_distances(kind, prediction, target, expected):
    np.testing.assert_allclose(visual_distance(jnp.array(prediction), jnp.array(target), kind), expected, atol=1e-6)


def test_the_cosine_of_a_zero_vector_has_a_finite_gradient():
    gradient = jax.grad(lambda x: visual_distance(x, jnp.ones(3), "cosine"))(jnp.zeros(3))
    assert np.isfinite(gradient).all()


def test_cross_entropy_is_minus_the_log_probability_of_the_label():
    probabilities = np.array([[0.5, 0.25, 0.25]], np.float32)
    value = cross_entropy(jnp.log(probabilities) + 7.0, jnp.array([1]))
    np.testing.assert_allclose(value, [-np.log(0.25)], rtol=1e-6)


def test_cross_entropy_of_large_logits_is_finite():
    np.testing.assert_allclose(cross_entropy(jnp.array([[1e4, 0.0]]), jnp.array([1])), [1e4])


# Losses of predictions


def zero_draws(batch: Batch, time: float = 0.0) -> Draws:
    """Zero latents, zero noise, and the same time for all tokens."""
    latents = jnp.zeros((*batch.latent_index.shape, batch.latent_moments.shape[-1] // 2))
    times = (jnp.full(x.shape, time) for x in (batch.latent_index, batch.caption_ids, batch.query_index))
    return Draws(latents, latents, *times)


def zero_predictions(batch: Batch, vocabulary: int = 4, features: int = 2) -> Predictions:
    queries = jnp.zeros((*batch.query_index.shape, features))
    latents = jnp.zeros((*batch.latent_index.shape, batch.latent_moments.shape[-1] // 2))
    return Predictions(
        velocity=latents,
        text_logits=jnp.zeros((*batch.text_ids.shape, vocabulary)),
        caption_logits=jnp.zeros((*batch.caption_ids.shape, vocabulary)),
        query_prediction=queries,
        query_target=queries,
        align_prediction=latents[..., :features],
        align_target=latents[..., :features],
        start_velocity=latents,
    )


def test_the_velocity_target_is_noise_minus_latents_and_features_are_averaged():
    batch = model_batch([TEXT_TO_IMAGE])
    draws = zero_draws(batch)
    draws = draws._replace(noise=draws.noise + 3.0, latents=draws.latents + 1.0)
    losses = token_losses(zero_predictions(batch), batch, draws, ObjectiveConfig())
    np.testing.assert_allclose(losses["flow"].value, 4.0)
    np.testing.assert_array_equal(losses["flow"].counts, batch.generation.sample > 0)


def test_clean_context_latents_have_no_flow_loss():
    batch = model_batch([EDITING])
    losses = token_losses(zero_predictions(batch), batch, zero_draws(batch), ObjectiveConfig())
    np.testing.assert_array_equal(losses["flow"].counts, (batch.generation.block > 0))
    assert np.any((batch.generation.sample > 0) & ~losses["flow"].counts)


def test_answers_are_a_loss_only_if_their_weight_is_not_zero():
    batch = model_batch([UNDERSTANDING])
    predictions = zero_predictions(batch)
    config = ObjectiveConfig(answer_weight=0.1)
    with_answers = token_losses(predictions, batch, zero_draws(batch), config)
    without = token_losses(predictions._replace(text_logits=None), batch, zero_draws(batch), ObjectiveConfig())
    assert "answer" in with_answers
    assert "answer" not in without


def test_the_align_loss_is_the_configured_distance_at_the_noised_target():
    batch = model_batch([EDITING], layout=replace(LAYOUT, align=True))
    predictions = zero_predictions(batch)
    predictions = predictions._replace(align_prediction=predictions.align_prediction + 3.0)
    config = ObjectiveConfig(align_weight=1.0, align_loss="mse")
    losses = token_losses(predictions, batch, zero_draws(batch), config)
    np.testing.assert_allclose(losses["align"].value, 9.0)
    np.testing.assert_array_equal(losses["align"].counts, batch.latent_loss)


def test_the_anchor_loss_is_the_mean_square_of_the_difference_to_the_velocity_of_the_start():
    batch = model_batch([EDITING])
    predictions = zero_predictions(batch)
    predictions = predictions._replace(start_velocity=predictions.start_velocity + 2.0)
    losses = token_losses(predictions, batch, zero_draws(batch), ObjectiveConfig(anchor_weight=0.1))
    np.testing.assert_allclose(losses["anchor"].value, 4.0)
    np.testing.assert_array_equal(losses["anchor"].counts, batch.latent_loss)


# The table of losses


def test_outputs_are_computed_only_for_active_losses_that_need_them():
    assert needs(ObjectiveConfig()) == set()
    assert needs(ObjectiveConfig(answer_weight=1.0, align_weight=1.0, anchor_weight=1.0)) == {
        "answers",
        "align",
        "start",
    }
    assert needs(ObjectiveConfig(balance=BalanceConfig(align=0.1))) == {"align"}


def test_gradients_of_flow_and_of_active_supervision_are_measured():
    assert measured_losses(ObjectiveConfig(answer_weight=1.0, anchor_weight=1.0)) == ("flow", "caption", "visual")
    assert measured_losses(ObjectiveConfig(align_weight=1.0)) == ("flow", "caption", "visual", "align")


def test_names_of_losses_differ():
    assert len({loss.name for loss in LOSSES}) == len(LOSSES)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
def test_the_config_has_the_fields_of_a_loss(loss):
    config = ObjectiveConfig(**{loss.weight: 0.5})
    assert loss.weight_in(config) == 0.5
    if loss.time_power:
        config = ObjectiveConfig(**{loss.time_power: 2.0})
        assert loss.time_power_in(config) == 2.0
    if loss.supervision:
        config = ObjectiveConfig(balance=BalanceConfig(**{loss.name: 0.25}))
        assert loss.balance_in(config) == 0.25


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
def test_only_a_loss_of_tokens_with_time_has_a_weight_over_t(loss):
    assert loss.tokens.time is not None or loss.time_power is None


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
def test_the_value_of_a_loss_has_the_shape_of_its_mask(loss):
    batch = model_batch([TEXT_TO_IMAGE, UNDERSTANDING], [EDITING])
    value = loss.function(zero_predictions(batch), batch, zero_draws(batch), ObjectiveConfig())
    assert value.shape == loss.tokens.mask(batch).shape


@pytest.mark.parametrize("loss", SUPERVISION, ids=lambda loss: loss.name)
def test_a_balanced_loss_is_active_at_weight_zero(loss):
    config = ObjectiveConfig(**{loss.weight: 0.0}, balance=BalanceConfig(**{loss.name: 0.1}))
    assert loss in active_losses(config)


# Reduction


def flow_only(value, counts, time=None) -> dict[str, TokenLosses]:
    value = jnp.asarray([value], jnp.float32)
    time = jnp.zeros_like(value) if time is None else jnp.asarray([time], jnp.float32)
    return {"flow": TokenLosses(value, jnp.asarray([counts]), time, jnp.zeros(value.shape, jnp.int32))}


def test_a_loss_is_the_sum_over_its_tokens_divided_by_the_global_count():
    losses = flow_only([1.0, 3.0, 100.0], [True, True, False])
    np.testing.assert_allclose(reduce_losses(losses, {"flow": jnp.float32(8)}, ObjectiveConfig())["flow"], (1 + 3) / 8)


def test_the_counts_cover_the_loss_masks_of_all_rows():
    batch = model_batch([TEXT_TO_IMAGE, UNDERSTANDING], [EDITING])
    counts = loss_counts(batch)
    # 4 + 2 latents; captions of 3 + 2 ids, each with a closing token; 2 + 4 patches; 2 ids with a closing token.
    for name, expected in {"flow": 4 + 2, "caption": 4 + 3, "visual": 2 + 4, "answer": 3}.items():
        assert counts[name] == expected, name


def test_a_weight_over_t_multiplies_the_numerator_only():
    losses = flow_only([1.0, 1.0], [True, True], time=[0.0, 0.5])
    config = ObjectiveConfig(flow_time_power=2.0)
    reduced = reduce_losses(losses, {"flow": jnp.float32(2)}, config)
    np.testing.assert_allclose(reduced["flow"], (1 + 0.5**2) / 2)


@pytest.mark.parametrize("name", ["caption", "visual"])
def test_each_loss_has_its_own_weight_over_t(name):
    losses = {name: flow_only([1.0], [True], time=[0.75])["flow"], **flow_only([1.0], [True], time=[0.75])}
    config = ObjectiveConfig(**{f"{name}_time_power": 1.0})
    reduced = reduce_losses(losses, {name: jnp.float32(1), "flow": jnp.float32(1)}, config)
    np.testing.assert_allclose((reduced[name], reduced["flow"]), (0.25, 1.0))


@pytest.mark.parametrize("kind", ["cosine", "mse", "smooth_l1"])
def test_a_batch_without_loss_tokens_has_zero_losses_and_finite_gradients(kind):
    batch = model_batch([])
    config = ObjectiveConfig(visual_loss=kind, answer_weight=1.0, flow_time_power=0.5)

    def total(predictions: Predictions):
        losses = token_losses(predictions, batch, zero_draws(batch, time=1.0), config)
        return total_loss(reduce_losses(losses, loss_counts(batch), config), fixed_weights(config))

    value, gradient = jax.value_and_grad(total)(zero_predictions(batch))
    assert value == 0
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(gradient))


def test_a_non_finite_value_on_padding_does_not_matter():
    losses = flow_only([1.0, np.nan], [True, False])
    assert reduce_losses(losses, {"flow": jnp.float32(1)}, ObjectiveConfig())["flow"] == 1.0


def test_the_total_is_the_weighted_sum():
    config = ObjectiveConfig(flow_weight=1.0, caption_weight=0.25, visual_weight=0.5, answer_weight=2.0)
    reduced = {"flow": jnp.float32(1), "caption": jnp.float32(4), "visual": jnp.float32(6), "answer": jnp.float32(8)}
    assert total_loss(reduced, fixed_weights(config)) == 1 + 1 + 3 + 16


# Splits for metrics


def token_losses_at_random(tokens: int, seed: int) -> TokenLosses:
    rng = np.random.default_rng(seed)
    return TokenLosses(
        value=jnp.asarray(rng.random((2, tokens)), jnp.float32),
        counts=jnp.asarray(rng.random((2, tokens)) < 0.7),
        time=jnp.asarray(rng.choice([0.0, 0.25, 0.5, 1.0, rng.random()], (2, tokens)), jnp.float32),
        task=jnp.asarray(rng.integers(0, len(TASKS), (2, tokens)), jnp.int32),
        dataset=jnp.asarray(rng.integers(0, 2, (2, tokens)), jnp.int32),
    )


@settings(max_examples=15)
@given(seed=st.integers(0, 999))
def test_time_bins_tasks_and_datasets_each_add_up_to_the_total(seed):
    sums = loss_sums({"flow": token_losses_at_random(9, seed)}, ("photos", "edits"))
    bins = [sums[name] for name in sums if name.startswith("flow/t0")]
    tasks = [sums[f"flow/{task}"] for task in TASKS]
    assert len(bins) == TIME_BINS
    datasets = [sums[f"flow/dataset/{name}"] for name in ("photos", "edits")]
    for parts in (bins, tasks, datasets):
        np.testing.assert_allclose(np.sum(parts, axis=0), sums["flow"], rtol=1e-6)


def test_a_bin_includes_its_lower_bound_and_the_last_bin_includes_one():
    losses = flow_only([1.0, 1.0, 1.0], [True, True, True], time=[0.0, 0.25, 1.0])
    counts = {name: int(count) for name, (_, count) in loss_sums(losses).items() if name.startswith("flow/t0")}
    assert counts == {"flow/t0.00-0.25": 1, "flow/t0.25-0.50": 1, "flow/t0.50-0.75": 0, "flow/t0.75-1.00": 1}


def test_answers_have_tasks_and_no_time_bins():
    names = set(loss_sums({"answer": token_losses_at_random(3, 0)._replace(time=None)}))
    assert names == {"answer", *(f"answer/{task}" for task in TASKS)}


# Times and noise


@pytest.mark.parametrize(
    ("raw", "shift", "expected"),
    [(0.0, 1.0, 0.5), (0.0, 4.0, 4 * 0.5 / (1 + 3 * 0.5)), (-np.inf, 4.0, 0.0), (40.0, 4.0, 1.0)],
)
def test_time_of_a_normal_draw(raw, shift, expected):
    np.testing.assert_allclose(shifted_time(jnp.float32(raw), shift), expected, rtol=1e-6)


@functools.cache
def drawing(seed: int = 0, shift: float = 1.0, autoencoder: AutoencoderConfig = AUTOENCODER):
    return quick_jit(functools.partial(draw, seed=seed, shift=shift, autoencoder=autoencoder))


def draws_of(*rows, **settings) -> tuple[Batch, Draws]:
    batch = model_batch(*rows, *[()] * (3 - len(rows)))
    return batch, jax.device_get(drawing(**settings)(batch))


def drawn_for(batch: Batch, draws: Draws, occurrence: int) -> list[np.ndarray]:
    """All draws of one sample, in the order of its tokens."""
    latents = (batch.generation.sample > 0) & (batch.latent_source.occurrence == occurrence)
    first_caption, first_query = batch.text_ids.shape[1] + batch.vit_image.shape[1], -batch.query_index.shape[1]
    sample = batch.understanding.sample
    captions = (sample[:, first_caption:first_query] > 0) & (batch.caption_source.occurrence == occurrence)
    queries = (sample[:, first_query:] > 0) & (batch.query_source.occurrence == occurrence)
    return [
        *(x[latents] for x in (draws.noise, draws.latents, draws.latent_times)),
        draws.caption_times[captions],
        draws.query_times[queries],
    ]


@settings(max_examples=20)
@given(order=st.permutations(range(3)), rows=st.lists(st.integers(0, 2), min_size=3, max_size=3))
def test_draws_do_not_depend_on_the_place_of_the_sample(order, rows):
    samples = [Sample(plan, occurrence=100 + i) for i, plan in enumerate(NAMED[:3])]
    batch, draws = draws_of(samples)
    moved, moved_draws = draws_of(*([samples[i] for i in order if rows[i] == row] for row in range(3)))
    for sample in samples:
        expected = drawn_for(batch, draws, sample.occurrence)
        for actual, before in zip(drawn_for(moved, moved_draws, sample.occurrence), expected, strict=True):
            np.testing.assert_array_equal(actual, before)


def test_another_occurrence_of_a_sample_has_other_draws():
    batch, draws = draws_of([Sample(TEXT_TO_IMAGE, occurrence=1), Sample(TEXT_TO_IMAGE, occurrence=2)])
    first, second = drawn_for(batch, draws, 1), drawn_for(batch, draws, 2)
    assert all(np.all(a != b) for a, b in zip(first, second, strict=True))


def test_another_seed_has_other_draws():
    batch, first = draws_of([SECOND_ROUND])
    _, second = draws_of([SECOND_ROUND], seed=1)
    assert all(
        np.all(a != b) for a, b in zip(drawn_for(batch, first, 0)[:2], drawn_for(batch, second, 0)[:2], strict=True)
    )


def test_an_image_has_one_time_which_its_supervision_shares():
    batch, draws = draws_of([SECOND_ROUND])
    times = {}
    for image in (0, 2):  # image 1 is the clean source of the second round
        latents = (batch.generation.sample > 0) & (batch.latent_source.image == image)
        captions = batch.caption_loss & (batch.caption_source.image == image)
        queries = batch.query_loss & (batch.query_source.image == image)
        drawn = [draws.latent_times[latents], draws.caption_times[captions], draws.query_times[queries]]
        times[image] = set(np.concatenate(drawn).tolist())
        assert len(times[image]) == 1
    assert times[0] != times[2]


def test_clean_latents_have_time_zero_and_are_not_noised():
    batch, draws = draws_of([EDITING])
    clean = (batch.generation.sample > 0) & ~batch.latent_loss
    assert not np.any(draws.latent_times[clean])
    np.testing.assert_array_equal(draws.noised[clean], draws.latents[clean])


def test_a_noised_latent_lies_between_the_latent_and_the_noise():
    batch, draws = draws_of([TEXT_TO_IMAGE])
    t = draws.latent_times[..., None]
    assert np.all((t[batch.latent_loss] > 0) & (t[batch.latent_loss] < 1))
    np.testing.assert_allclose(draws.noised, (1 - t) * draws.latents + t * draws.noise)


def test_tokens_of_an_image_have_different_noise():
    batch, draws = draws_of([SECOND_ROUND])
    rows = [row.tobytes() for x in (draws.noise, draws.latents) for row in x[batch.generation.sample > 0]]
    assert len(set(rows)) == len(rows)


def test_noise_is_standard_normal_and_times_are_logistic_normal():
    """Uses 405 samples, fifteen at a time, with bounds of five standard errors."""
    noise, times = [], []
    for first in range(0, 405, 15):
        samples = [Sample(TEXT_TO_IMAGE, occurrence=first + i) for i in range(15)]
        batch, draws = draws_of(samples[:5], samples[5:10], samples[10:])
        noise.append(draws.noise[batch.latent_loss].ravel())
        times.append(draws.latent_times[batch.latent_loss & (batch.latent_index == 0)])
    noise, raw = np.concatenate(noise), np.concatenate(times).astype(np.float64)
    raw = np.log(raw / (1 - raw))
    for values in (noise, raw):
        assert abs(values.mean()) < 5 / np.sqrt(values.size)
        assert abs(values.var() - 1) < 5 * np.sqrt(2 / values.size)


def test_latents_are_sampled_from_the_moments_and_scaled():
    batch = model_batch([TEXT_TO_IMAGE], [], [])
    mean, log_variance = np.split(batch.latent_moments, 2, axis=-1)
    draws = jax.device_get(drawing(autoencoder=AutoencoderConfig(scale=0.5, shift=0.25))(batch))
    chosen = batch.latent_loss
    normal = (draws.latents / 0.5 + 0.25 - mean)[chosen] / np.exp(0.5 * log_variance[chosen])
    assert abs(normal.mean()) < 5 / np.sqrt(normal.size)
    assert abs(normal.var() - 1) < 5 * np.sqrt(2 / normal.size)
    assert not np.allclose(normal, draws.noise[chosen], atol=0.1)
