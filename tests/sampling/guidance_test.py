"""Guidance: three velocities combined into one."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uno_jax.sampling.guidance import GuidanceConfig, guidance_numbers, guide

RNG = np.random.default_rng(0)
CONDITIONAL, WITHOUT_TEXT, WITHOUT_IMAGE = RNG.standard_normal((3, 2, 5, 3)).astype(np.float32)
REAL = np.array([[True] * 5, [True] * 3 + [False] * 2])
ALL = np.ones((2, 5), bool)


def guided(real: np.ndarray = ALL, conditional: np.ndarray = CONDITIONAL, **settings) -> np.ndarray:
    config = GuidanceConfig(**settings)
    arrays = map(jnp.asarray, (conditional, WITHOUT_TEXT, WITHOUT_IMAGE, real))
    return np.asarray(guide(*arrays, guidance_numbers(config), config.rescale))


def test_without_rescaling_guidance_extrapolates_from_the_unguided_velocities():
    by_text = WITHOUT_TEXT + 3 * (CONDITIONAL - WITHOUT_TEXT)
    both = WITHOUT_IMAGE + 2 * (by_text - WITHOUT_IMAGE)
    np.testing.assert_allclose(guided(text_scale=3.0, image_scale=1.0, rescale_min=1.0), by_text, rtol=1e-5)
    np.testing.assert_allclose(guided(text_scale=3.0, image_scale=2.0, rescale_min=1.0), both, rtol=1e-4, atol=1e-5)


def norms(velocity: np.ndarray, rescale: str) -> np.ndarray:
    return np.sqrt((velocity**2).sum(axis=(1, 2) if rescale == "global" else 2))


@pytest.mark.parametrize("rescale", ["global", "channel"])
@pytest.mark.parametrize("image_scale", [1.0, 2.0])
def test_rescaling_reduces_the_norm_to_the_conditional_one(rescale, image_scale):
    velocity = guided(text_scale=8.0, image_scale=image_scale, rescale=rescale)
    np.testing.assert_allclose(norms(velocity, rescale), norms(CONDITIONAL, rescale), rtol=1e-5)


def test_text_channel_rescales_before_the_guidance_by_images_and_not_after():
    by_text = guided(text_scale=8.0, image_scale=1.0, rescale="channel")
    both = guided(text_scale=8.0, image_scale=2.0, rescale="text_channel")
    np.testing.assert_allclose(both, WITHOUT_IMAGE + 2 * (by_text - WITHOUT_IMAGE), rtol=1e-4, atol=1e-5)


def test_rescaling_never_enlarges():
    """A guided velocity shorter than the conditional one stays unchanged."""
    conditional = 0.9 * WITHOUT_TEXT
    velocity = guided(conditional=conditional, text_scale=1.2, image_scale=1.0)
    np.testing.assert_allclose(velocity, (1 - 1.2 * 0.1) * WITHOUT_TEXT, rtol=1e-5)


def test_the_factor_is_at_least_the_stated_minimum():
    plain = guided(text_scale=50.0, image_scale=1.0, rescale_min=1.0)
    np.testing.assert_allclose(guided(text_scale=50.0, image_scale=1.0, rescale_min=0.7), 0.7 * plain, rtol=1e-5)


@given(
    text_scale=st.floats(1.1, 20.0),
    image_scale=st.floats(1.0, 5.0),
    minimum=st.floats(0.0, 1.0),
    rescale=st.sampled_from(["global", "channel"]),
)
def test_rescaling_keeps_the_direction_and_reduces_the_norm_down_to_the_conditional_one_or_the_minimum_factor(
    text_scale, image_scale, minimum, rescale
):
    plain = guided(text_scale=text_scale, image_scale=image_scale, rescale_min=1.0).astype(np.float64)
    velocity = guided(text_scale=text_scale, image_scale=image_scale, rescale=rescale, rescale_min=minimum)
    velocity = velocity.astype(np.float64)
    factor = norms(velocity, rescale) / norms(plain, rescale)
    assert (minimum - 1e-5 <= factor).all()
    assert (factor <= 1 + 1e-5).all()
    maximum = np.maximum(norms(CONDITIONAL, rescale), minimum * norms(plain, rescale))
    assert (norms(velocity, rescale) <= maximum * (1 + 1e-5)).all()
    along = factor[:, None, None] if rescale == "global" else factor[..., None]
    np.testing.assert_allclose(velocity, along * plain, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("rescale", ["global", "channel", "text_channel"])
def test_norms_are_per_image_and_ignore_padding(rescale):
    together = guided(REAL, rescale=rescale)
    other = CONDITIONAL.copy()
    other[1, 3:] = 100.0  # padding
    other[0] = 3 * other[0]  # another image
    np.testing.assert_array_equal(guided(REAL, other, rescale=rescale)[1, :3], together[1, :3])


def test_guidance_applies_within_its_interval_of_times():
    times = np.array([1.0, 0.95, 0.7, 0.5, 0.2], np.float32)
    acts = GuidanceConfig(interval=(0.5, 0.95)).acts(times)
    assert acts.tolist() == [False, True, True, False, False]


def test_without_guidance_by_text_there_is_no_guidance():
    assert not GuidanceConfig(text_scale=1.0, interval=(0.0, 1.0)).acts(np.array([1.0, 0.5])).any()


@pytest.mark.parametrize(
    "fields",
    [
        {"interval": (0.6, 0.5)},
        {"interval": (0.0, 1.5)},
        {"rescale_min": 1.5},
        {"rescale_min": -0.1},
        {"text_scale": math.nan},
        {"text_scale": math.inf},
        {"image_scale": math.nan},
        {"image_scale": math.inf},
        {"interval": (math.nan, 1.0)},
        {"interval": (0.4, math.inf)},
        {"rescale_min": math.nan},
    ],
)
def test_invalid_settings_raise_an_error_with_their_name(fields):
    with pytest.raises(ValueError, match=f"{next(iter(fields))} is"):
        GuidanceConfig(**fields)


@pytest.mark.usefixtures("unchecked_annotations")
def test_an_unknown_way_of_rescaling_is_refused():
    with pytest.raises(ValueError, match="rescale is 'chanel': expected one of global, channel, text_channel"):
        GuidanceConfig(rescale="chanel")
