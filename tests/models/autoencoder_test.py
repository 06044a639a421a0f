"""Autoencoders, latent patches, and encoding of packed batches."""

import dataclasses
import functools
import json
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers import made_up_plans
from tests.helpers.eight_device_process import run_with_eight_devices
from tests.helpers.made_up_records import LAYOUT
from tests.helpers.small_autoencoder import (
    FLUX,
    PIXEL,
    TOKENS,
    TRANSFORMER,
    batch_of,
    model_config,
    pictures,
    variables_of,
)
from uno_jax.batch import Batch
from uno_jax.models.autoencoder import make_autoencoder, patchify_latents, sample_latents, unpatchify_latents
from uno_jax.models.autoencoder_batch import encode_batch, image_grids
from uno_jax.models.config import AutoencoderConfig
from uno_jax.models.positions import pixels_to_float
from uno_jax.parallel.mesh import host_mesh, replicated


@functools.partial(jax.jit, static_argnums=0)
def encode(autoencoder, variables, images):
    return autoencoder.apply(variables, images, method="encode")


sizes = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 4))


@settings(max_examples=30)
@given(sizes)
def test_unpatchify_inverts_patchify(size):
    rows, columns, patch, channels = size
    count = 2 * rows * patch * columns * patch * channels
    latents = jnp.arange(count, dtype=jnp.float32).reshape(2, rows * patch, columns * patch, -1)
    tokens = patchify_latents(latents, patch)
    assert tokens.shape == (2, rows * columns, patch * patch * channels)
    np.testing.assert_array_equal(unpatchify_latents(tokens, rows, columns, patch), latents)


def test_a_patch_flattens_row_column_channel_with_the_channel_fastest():
    latents = jnp.arange(2.0 * 4 * 3).reshape(1, 2, 4, 3)
    second = patchify_latents(latents, 2)[0, 1]
    np.testing.assert_array_equal(second, latents[0, :2, 2:].reshape(-1))


def test_sampling_scales_mean_plus_deviation_times_noise():
    moments = jnp.array([[3.0, 2 * np.log(5.0)]])
    np.testing.assert_allclose(
        sample_latents(moments, jnp.array([[2.0]]), 0.5, 1.0), [[0.5 * (3 + 5 * 2 - 1)]], rtol=1e-6
    )


@settings(max_examples=8)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(0, 2**16))
def test_the_pixel_autoencoder_is_lossless(rows, columns, seed):
    images = np.random.default_rng(seed).uniform(-1, 1, (2, 2 * rows, 2 * columns, 3)).astype(np.float32)
    autoencoder = make_autoencoder(PIXEL)
    np.testing.assert_allclose(autoencoder.apply({}, jnp.asarray(images)), images, atol=1e-6)


def test_a_sample_of_the_pixel_autoencoder_is_its_mean():
    autoencoder = make_autoencoder(PIXEL)
    moments = encode(autoencoder, {}, np.full((1, 4, 4, 3), 0.5, np.float32))
    still, noisy = (sample_latents(moments, jnp.full((1, 2, 2, 12), noise), 0.3, 0.1) for noise in (0.0, 5.0))
    np.testing.assert_array_equal(still, noisy)


def test_flux_halves_the_sides_in_every_level_but_the_last():
    autoencoder = make_autoencoder(FLUX)
    image = jax.ShapeDtypeStruct((1, 4, 8, 3), np.float32)
    moments = jax.eval_shape(functools.partial(encode, autoencoder), variables_of(autoencoder), image)
    assert moments.shape == (1, 2, 4, 2 * FLUX.latent_channels)


def test_latents_of_the_transformer_autoencoder_are_normalised_over_their_channels_and_exact():
    autoencoder = make_autoencoder(TRANSFORMER)
    images = np.random.default_rng(0).uniform(-1, 1, (2, 4, 6, 3)).astype(np.float32)
    moments = np.asarray(encode(autoencoder, variables_of(autoencoder), images))
    assert moments.shape == (2, 2, 3, 8)
    np.testing.assert_allclose(moments[..., :4].mean(-1), 0, atol=1e-5)
    np.testing.assert_allclose(moments[..., :4].std(-1), 1, atol=1e-2)
    assert np.all(np.exp(moments[..., 4:] / 2) < 1e-12)


def test_a_picture_with_more_patches_than_the_transformer_autoencoder_has_positions_raises_an_error():
    autoencoder = make_autoencoder(TRANSFORMER)
    with pytest.raises(ValueError, match=r"9 x 1 patches.*positions for 8 along each side"):
        encode(autoencoder, variables_of(autoencoder), np.zeros((1, 18, 2, 3), np.float32))


@pytest.mark.parametrize("config", [FLUX, TRANSFORMER, PIXEL], ids=lambda config: config.kind)
def test_sides_that_downsampling_does_not_divide_raise_an_error(config):
    autoencoder = make_autoencoder(config)
    with pytest.raises(ValueError, match="multiples of 2"):
        encode(autoencoder, variables_of(autoencoder), np.zeros((1, 4, 5, 3), np.float32))


@pytest.mark.parametrize(
    ("config", "field"),
    [
        (AutoencoderConfig(downsample=4), "autoencoder.downsample"),
        (AutoencoderConfig(base_channels=20), "autoencoder.base_channels"),
        (AutoencoderConfig(kind="transformer"), "autoencoder.transformer.patch_size"),
        (AutoencoderConfig(kind="pixel"), "autoencoder.latent_channels"),
    ],
)
def test_the_error_for_contradictory_sizes_names_the_field(config, field):
    with pytest.raises(ValueError, match=field):
        make_autoencoder(config)


@pytest.mark.parametrize("pixels_at_once", [1, 2**20])
@pytest.mark.parametrize("autoencoder_config", [FLUX, TRANSFORMER, PIXEL], ids=lambda config: config.kind)
def test_encoding_a_batch_equals_encoding_each_image_alone(autoencoder_config, pixels_at_once):
    config = model_config(autoencoder_config)
    autoencoder = make_autoencoder(autoencoder_config)
    variables = variables_of(autoencoder)
    images = pictures(config)
    encoded = encode_batch(
        autoencoder, variables.get("params", {}), batch_of(images, config), config, pixels_at_once=pixels_at_once
    )
    used = [0, 0]
    for (row, _, _), picture in images.items():
        moments = encode(autoencoder, variables, pixels_to_float(picture)[None])
        mean, log_variance = np.split(np.asarray(moments), 2, axis=-1)
        expected = np.concatenate([patchify_latents(jnp.asarray(half), 2)[0] for half in (mean, log_variance)], axis=-1)
        actual = encoded.latent_moments[row, used[row] : used[row] + len(expected)]
        np.testing.assert_allclose(actual, expected, atol=2e-5)
        used[row] += len(expected)
    for row in range(2):
        assert not np.any(encoded.latent_moments[row, used[row] :])


def test_the_program_of_an_image_size_is_compiled_once_for_any_mix_of_sizes(caplog):
    config, autoencoder = model_config(FLUX), make_autoencoder(FLUX)
    params = jax.device_put(variables_of(autoencoder)["params"], replicated(host_mesh()))
    small, large = {(0, 1, 0): (1, 1)}, {(1, 1, 0): (2, 3)}

    def programs_for(grids) -> int:
        batch = batch_of(pictures(config, grids), config)
        caplog.clear()
        with jax.log_compiles(), caplog.at_level(logging.WARNING, logger="jax"):
            encode_batch(autoencoder, params, batch, config)
        return caplog.text.count("Finished XLA compilation of jit(_encode_images)")

    assert [programs_for(grids) for grids in (large, small | large, small, large)] == [1, 1, 0, 0]


def test_the_images_of_a_host_are_sharded_over_its_devices():
    """The tolerance is that of float32 convolutions over other numbers of images."""
    found = json.loads(run_with_eight_devices("-m", "tests.helpers.encoding_on_eight_devices").splitlines()[-1])
    assert found["difference"] <= 1e-6 * found["largest"]
    assert found["devices"] == 8
    assert found["share"] == pytest.approx(1 / 8, rel=0.01)
    assert found["features_difference"] <= 1e-6 * found["features"]


def test_precomputed_moments_are_kept():
    config = model_config(FLUX)
    batch = Batch(**batch_of({}, config).shared(), latent_moments=np.ones((2, TOKENS, 16), np.float32))
    assert encode_batch(make_autoencoder(FLUX), {}, batch, config) is batch


def test_a_batch_without_latents_has_moments_of_length_zero():
    config = model_config(FLUX)
    encoded = encode_batch(make_autoencoder(FLUX), {}, batch_of({}, config, tokens=0), config)
    assert encoded.latent_moments.shape == (2, 0, 2 * config.latent_size)


def test_two_noised_blocks_of_one_image_are_two_images():
    batch = made_up_plans.batch_of((made_up_plans.HIDDEN,))
    (places,) = image_grids(batch, LAYOUT.max_latent_size).values()
    assert places.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_the_error_for_an_incomplete_grid_names_the_image():
    config = model_config(FLUX)
    batch = batch_of(pictures(config), config)
    batch.latent_positions[0, 1] = 3
    with pytest.raises(ValueError, match=r"row 0, tokens 0 to 1 \(sample 1, latent image 0\)"):
        encode_batch(make_autoencoder(FLUX), {}, batch, config)


def test_pixels_of_the_wrong_width_raise_an_error():
    config = model_config(FLUX)
    batch = dataclasses.replace(batch_of({}, config), latent_pixels=np.zeros((2, TOKENS, 5), np.uint8))
    with pytest.raises(ValueError, match="expected 4 \\* 4 \\* 3 = 48 values per token"):
        encode_batch(make_autoencoder(FLUX), {}, batch, config)
