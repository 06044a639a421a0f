"""Proposed lengths of regions, for the published sizes."""

import dataclasses

import numpy as np
import pytest

from configs import bagel_7b_uno
from uno_jax.batch import Layout
from uno_jax.config import from_config_dict
from uno_jax.data.buffers import Buffers, fill_buffers
from uno_jax.data.config import DataConfig
from uno_jax.data.largest import needed_tokens
from uno_jax.data.proposal import FULL, changed_fields, longer, propose, real_latents, tokens_per_sample
from uno_jax.run.config import RunConfig

CONFIG = from_config_dict(bagel_7b_uno.get_config(), RunConfig).data
NEEDED = needed_tokens(CONFIG, Layout(), "text_to_image")


@pytest.fixture(scope="module")
def config() -> DataConfig:
    return CONFIG


@pytest.fixture(scope="module")
def square_pictures(config) -> Buffers:
    """Samples of 512 x 512 pixels: 1,024 latents and 256 metaqueries, with texts of 20 to 80 tokens."""
    random = np.random.default_rng(0)
    lengths = np.zeros((400, 5), np.int64)
    lengths[:, 0] = lengths[:, 2] = random.integers(20, 80, 400)
    lengths[:, 3:] = 256, 1024
    return fill_buffers(lengths, [], config)


def filled(buffers: Buffers, config: DataConfig) -> Buffers:
    return fill_buffers(buffers.lengths, [], config)


def test_metaqueries_no_longer_fill_a_row_first(config, square_pictures):
    assert square_pictures.packing is not None
    assert (square_pictures.packing.fullest, square_pictures.packing.samples_per_row) == ("query", 2.0)
    proposed = propose(square_pictures, config, NEEDED)
    packing = filled(square_pictures, proposed).packing
    assert packing is not None
    assert (proposed.latent_tokens, proposed.query_tokens) == (config.latent_tokens, 8 * 256)
    assert packing.padding["latent"] < 0.05


def test_a_good_config_stays_as_it_is(config, square_pictures):
    proposed = propose(square_pictures, config, NEEDED)
    again = propose(filled(square_pictures, proposed), proposed, NEEDED)
    cost = tokens_per_sample(filled(square_pictures, proposed), proposed)
    assert tokens_per_sample(filled(square_pictures, again), again) == pytest.approx(cost, rel=0.01)


def test_a_few_extreme_texts_do_not_set_the_length_of_a_region(config, square_pictures):
    lengths = square_pictures.lengths.copy()
    lengths[0, 2] = 100_000
    proposed = propose(fill_buffers(lengths, [], config), config, NEEDED)
    assert proposed.caption_tokens < 2_000
    lengths[:40, 2] = 5_000
    assert propose(fill_buffers(lengths, [], config), config, NEEDED).caption_tokens >= 5_000


def test_the_latent_region_grows_only_for_samples_that_need_it(config, square_pictures):
    small = dataclasses.replace(config, latent_tokens=512)
    assert propose(filled(square_pictures, small), small, NEEDED).latent_tokens == 4096
    # The largest picture of the transform needs as many, whatever the dataset holds: 1024 x 1024.


@pytest.fixture(scope="module")
def many_shapes(config) -> Buffers:
    """Samples of 192 to 4,096 latents with aspect ratios of 1:3 to 3:1, and texts of 20 to 200 tokens."""
    random = np.random.default_rng(0)
    lengths = np.zeros((400, 5), np.int64)
    sides = random.uniform(24, 64, 400)
    lengths[:, 4] = sides * sides * np.exp(-random.uniform(0, np.log(3), 400))
    lengths[:, 0] = random.integers(20, 100, 400)
    lengths[:, 2] = random.integers(20, 200, 400)
    lengths[:, 3] = random.integers(80, 256, 400)
    return fill_buffers(lengths, [], config)


def test_rows_are_full_if_other_lengths_make_them_so(config, many_shapes):
    cheap = propose(many_shapes, config, NEEDED)
    assert real_latents(many_shapes) < 0.6
    assert real_latents(many_shapes.refilled(cheap)) >= FULL


def test_more_rows_are_filled_at_a_time_if_that_fills_them(config, many_shapes):
    one = dataclasses.replace(config, packing_bins=1)
    proposed = propose(many_shapes, one, NEEDED)
    assert changed_fields(one, proposed)["packing_bins"] > 1
    assert real_latents(many_shapes.refilled(proposed)) >= FULL


def test_longer_rows_are_found_for_samples_that_leave_gaps(config, many_shapes):
    lengths = many_shapes.lengths.copy()
    lengths[:, 4] *= 2
    large = fill_buffers(lengths, [], config)
    proposed = propose(large, config, NEEDED)
    assert real_latents(large.refilled(proposed)) < FULL
    found = longer(large, proposed, NEEDED)
    assert found is not None
    assert found.latent_tokens == 2 * config.latent_tokens
    assert real_latents(large.refilled(found)) >= FULL


def test_no_longer_rows_fill_rows_of_one_sample(config, many_shapes):
    one = dataclasses.replace(config, max_samples_per_row=1)
    assert longer(many_shapes.refilled(one), one, NEEDED) is None
