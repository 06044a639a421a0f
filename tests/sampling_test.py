"""Sampling pictures and captions."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.made_up_plans import EDITING, TEXT_TO_IMAGE, Sample, batch_of, latents_of
from tests.small_model import CAPACITIES, model_batch, quick_jit, small_model, small_params
from uno_jax.attention.metadata import NOISED
from uno_jax.batch import Batch
from uno_jax.data.plans import NoisedTarget, Text
from uno_jax.models.autoencoder import make_autoencoder
from uno_jax.models.autoencoder_batch import encode_batch
from uno_jax.models.unified import UnifiedModel
from uno_jax.objectives.draws import draw
from uno_jax.sampling.decode import decode_pictures
from uno_jax.sampling.flow import FlowConfig, integrate, sample_pictures, time_grid
from uno_jax.sampling.text import decode_greedily, write_captions, written_ids

MODEL = small_model()
PARAMS = small_params(MODEL)
FLOW = FlowConfig(timesteps=3, time_shift=2.0)
SEED = 5
T2I, EDIT = Sample(TEXT_TO_IMAGE, 7), Sample(EDITING, 8)


@functools.cache
def sampler(config: FlowConfig = FLOW):
    return quick_jit(lambda *batches: sample_pictures(PARAMS, *batches, MODEL, config, SEED))


@functools.cache
def forward():
    """The model's predictions for a batch, latents and times."""
    unified = UnifiedModel(MODEL)
    return quick_jit(lambda batch, latents, times: unified.apply({"params": PARAMS}, batch, latents, times))


@functools.cache
def drawn():
    return quick_jit(lambda batch: draw(batch, SEED, 1.0, MODEL.autoencoder))


def picture_of(latents: Any, batch: Batch, row: int, sample: int = 1) -> np.ndarray:
    """Latents of the noised target of one sample."""
    generation = batch.generation
    return np.asarray(latents)[row, (generation.role[row] == NOISED) & (generation.sample[row] == sample)]


def test_the_grid_has_one_time_more_than_steps_and_ends_at_zero():
    np.testing.assert_allclose(time_grid(5, 1.0), [1, 0.75, 0.5, 0.25, 0])
    np.testing.assert_allclose(time_grid(3, 3.0), [1, 0.75, 0], rtol=1e-6)
    assert time_grid(3, 3.0).dtype == np.float32


@pytest.mark.parametrize(("timesteps", "shift"), [(2, 1.0), (3, 4.0), (25, 1.0), (50, 3.0)])
def test_a_perfect_model_gives_the_picture_for_any_number_of_steps(timesteps, shift):
    noise, picture = np.random.default_rng(0).standard_normal((2, 1, 3, 2), np.float32)
    everything = np.ones((1, 3), bool)
    end = integrate(lambda x, t: (x - picture) / t[..., None], noise, everything, time_grid(timesteps, shift))
    np.testing.assert_allclose(end, picture, atol=1e-5)


def test_a_step_goes_by_the_velocity_at_the_time_where_it_begins():
    times = np.array([1, 0.75, 0], np.float32)
    end = integrate(lambda x, t: t[..., None], np.zeros((1, 1, 1), np.float32), np.ones((1, 1), bool), times)
    np.testing.assert_allclose(end, [[[-0.25 * 1 - 0.75 * 0.75]]])


def test_tokens_that_are_not_generated_stay_at_time_zero_and_as_they_are():
    generated = np.array([[True, False]])
    start = np.ones((1, 2, 1), np.float32)
    seen = integrate(lambda x, t: 1 + t[..., None], start, generated, np.array([1, 0], np.float32))
    np.testing.assert_array_equal(seen, [[[1 - 2.0], [1]]])


def test_context_latents_come_out_as_the_autoencoder_gave_them():
    batch = model_batch([EDIT])
    latents = sampler()(batch, None)
    context = batch.generation.role != NOISED
    expected = np.asarray(drawn()(batch).latents)
    np.testing.assert_allclose(np.asarray(latents)[context], expected[context], atol=1e-6)


def test_two_times_make_one_step_from_the_noise():
    batch = model_batch([T2I, EDIT])
    sampled = sampler(FlowConfig(timesteps=2))(batch, None)
    draws = drawn()(batch)
    generated = batch.generation.role == NOISED
    start = np.where(generated[..., None], draws.noise, draws.latents)
    expected = start - np.asarray(forward()(batch, start, generated.astype(np.float32)).velocity)
    np.testing.assert_allclose(np.asarray(sampled)[generated], expected[generated], atol=2e-5)


def test_a_sample_is_the_same_in_whatever_place_and_company():
    alone, together, swapped = (model_batch(*rows) for rows in ([[EDIT], [T2I]], [[T2I, EDIT], []], [[], [EDIT, T2I]]))
    results = [sampler()(batch, None) for batch in (alone, together, swapped)]
    edits = [
        picture_of(results[0], alone, 0),
        picture_of(results[1], together, 0, 2),
        picture_of(results[2], swapped, 1),
    ]
    for edit in edits[1:]:
        np.testing.assert_allclose(edit, edits[0], atol=2e-5)


def test_another_occurrence_gives_another_sample():
    first, second = (model_batch([Sample(TEXT_TO_IMAGE, i)]) for i in (1, 2))
    difference = picture_of(sampler()(first, None), first, 0) - picture_of(sampler()(second, None), second, 0)
    assert np.abs(difference).max() > 0.1


def test_the_target_itself_is_not_read():
    other = (*TEXT_TO_IMAGE[:-1], NoisedTarget(pixels=latents_of(2, 2, seed=9)))
    plain = (*TEXT_TO_IMAGE[:-1], NoisedTarget(pixels=TEXT_TO_IMAGE[-1].pixels))
    a, b = (model_batch([Sample(plan, 7)]) for plan in (plain, other))
    np.testing.assert_array_equal(picture_of(sampler()(a, None), a, 0), picture_of(sampler()(b, None), b, 0))


def unprompted(sample: Sample) -> Sample:
    return sample._replace(plan=tuple(item for item in sample.plan if not isinstance(item, Text)))


def test_guidance_goes_on_from_the_velocity_without_the_prompt():
    guided = FlowConfig(timesteps=2, text_scale=3.0)
    batch, without = model_batch([T2I]), model_batch([unprompted(T2I)])
    plain = sampler(FlowConfig(timesteps=2))
    conditional, unconditional, both = (
        picture_of(x, batch, 0) for x in (plain(batch, None), plain(without, None), sampler(guided)(batch, without))
    )
    np.testing.assert_allclose(both, unconditional + 3.0 * (conditional - unconditional), atol=1e-4)


def test_a_scale_of_one_reads_no_second_batch():
    batch, without = model_batch([T2I]), model_batch([unprompted(T2I)])
    np.testing.assert_array_equal(sampler()(batch, without), sampler()(batch, None))


START, END = 0, 1


def decode(successors: list[list[int]], length: int) -> list[list[int]]:
    """Captions of rows in which token i is always followed by `successors[row][i]`."""
    table = jax.nn.one_hot(np.array(successors), 6)
    logits_of = lambda ids: jnp.take_along_axis(table, ids[..., None], axis=1)  # noqa: E731
    return jax.jit(lambda: decode_greedily(logits_of, len(successors), length, START, END))().tolist()


def test_a_caption_stops_at_the_end_token():
    assert decode([[2, 5, 3, END, 4, 4]], 7) == [[START, 2, 3, END, END, END, END]]


def test_a_caption_without_an_end_is_cut_at_its_length():
    assert decode([[2, 5, 3, 2, 4, 4]], 5) == [[START, 2, 3, 2, 3]]


def test_a_caption_that_has_ended_waits_for_the_others():
    ids = decode([[END, 5, 0, 0, 0, 0], [2, 5, 3, END, 4, 4]], 5)
    assert ids == [[START, END, END, END, END], [START, 2, 3, END, END]]


@pytest.mark.parametrize(("ids", "expected"), [([0, 2, 3, 1, 1], [2, 3]), ([0, 1, 1], []), ([0, 4, 5], [4, 5])])
def test_written_ids_stand_between_start_and_end(ids, expected):
    assert written_ids(ids, END) == expected


def caption_batch(*seeds: int) -> Batch:
    rows = [[Sample((NoisedTarget(pixels=latents_of(2, 2, seed), caption=(0,) * 4),), seed)] for seed in seeds]
    return model_batch(*rows, capacities=CAPACITIES | {"caption": 6, "query": 0, "vit": 0, "latent": 4})


@functools.cache
def writer():
    return quick_jit(lambda batch, latents: write_captions(PARAMS, batch, latents, MODEL, START, END))


def latents_in(batch: Batch) -> np.ndarray:
    return np.split(batch.latent_moments, 2, axis=-1)[0]


def test_a_caption_does_not_depend_on_the_other_rows():
    together, swapped = caption_batch(1, 2, 3), caption_batch(3, 1, 4)
    first, second = writer()(together, latents_in(together)), writer()(swapped, latents_in(swapped))
    np.testing.assert_array_equal(first[0], second[1])
    np.testing.assert_array_equal(first[2], second[0])


def test_every_token_of_a_caption_is_the_likeliest_after_those_before():
    batch = caption_batch(1, 2, 3)
    latents = latents_in(batch)
    ids = np.asarray(writer()(batch, latents))
    times = np.zeros(latents.shape[:2], np.float32)
    likeliest = np.argmax(forward()(batch._replace(caption_ids=ids), latents, times).caption_logits, axis=-1)
    assert (ids[:, 0] == START).all()
    np.testing.assert_array_equal(ids[:, 1:], likeliest[:, :-1])  # none of these captions ends


def test_the_ids_that_hold_a_captions_place_are_not_read():
    batch = caption_batch(1, 2)
    other = batch._replace(caption_ids=np.full_like(batch.caption_ids, 9))
    np.testing.assert_array_equal(writer()(batch, latents_in(batch)), writer()(other, latents_in(batch)))


def test_decoded_pictures_are_what_was_encoded():
    autoencoder, grids = make_autoencoder(MODEL.autoencoder), [(2, 2), (1, 2)]
    pixels = [latents_of(*grid) for grid in grids]
    batch = batch_of(*([(NoisedTarget(pixels=p),)] for p in pixels), capacities=CAPACITIES)
    latents = drawn()(encode_batch(autoencoder, {}, batch, MODEL)).latents
    tokens = [np.asarray(latents[i, : rows * columns]) for i, (rows, columns) in enumerate(grids)]
    decoded = decode_pictures(autoencoder, {}, tokens, grids, MODEL)
    for picture, original in zip(decoded, pixels, strict=True):
        assert picture.dtype == np.uint8
        assert np.abs(picture.astype(int) - original).max() <= 1
