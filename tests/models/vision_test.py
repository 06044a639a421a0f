"""The vision encoder and the connector: packing and padding change no result."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uno_jax.models.config import VisionConfig
from uno_jax.models.vision import Connector, VisionEncoder

CONFIG = VisionConfig(hidden_size=8, num_layers=2, num_heads=2, mlp_size=12, patch_size=2, table_side=4)
COUNT = 7


def inputs(image):
    """One row of random patches at random positions; `image` numbers their images."""
    generator = np.random.default_rng(0)
    patches = generator.uniform(-1, 1, (1, COUNT, 3 * CONFIG.patch_size**2)).astype(np.float32)
    positions = generator.integers(0, CONFIG.table_side**2, (1, COUNT), dtype=np.int32)
    return patches, positions, np.asarray(image, np.int32)[None]


PARAMS = jax.jit(VisionEncoder(CONFIG).init)(jax.random.key(0), *inputs([1] * COUNT))
encode = jax.jit(VisionEncoder(CONFIG).apply)


@settings(max_examples=25)
@given(st.lists(st.integers(0, 3), min_size=COUNT, max_size=COUNT))
def test_packed_images_equal_each_image_alone(image):
    patches, positions, image = inputs(image)
    packed = encode(PARAMS, patches, positions, image)
    for number in set(image.flat) - {0}:
        alone = encode(PARAMS, patches, positions, np.where(image == number, 1, 0))
        np.testing.assert_allclose(packed[image == number], alone[image == number], rtol=1e-5, atol=1e-6)


def test_the_contents_of_padding_have_no_effect():
    patches, positions, image = inputs([1, 1, 0, 2, 2, 0, 0])
    padding = (image == 0)[..., None]
    clean = encode(PARAMS, patches, positions, image)
    dirty = encode(PARAMS, np.where(padding, np.float32(1e3), patches), positions, image)
    np.testing.assert_array_equal(clean[image > 0], dirty[image > 0])


def test_a_row_of_padding_has_finite_features_and_gradients():
    patches, positions, image = inputs([0] * COUNT)

    def loss(params):
        return jnp.sum(encode(params, patches, positions, image) ** 2)

    value, gradient = jax.jit(jax.value_and_grad(loss))(PARAMS)
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_images_of_a_row_do_not_see_each_other():
    patches, positions, image = inputs([1, 1, 1, 2, 2, 2, 2])
    changed = np.where((image == 2)[..., None], -patches, patches)
    first, second = encode(PARAMS, patches, positions, image), encode(PARAMS, changed, positions, image)
    np.testing.assert_array_equal(first[image == 1], second[image == 1])
    assert np.abs(first[image == 2] - second[image == 2]).min() > 0


@pytest.mark.parametrize("choice", [{"scan_unroll": 2}, {"remat": "full"}, {"remat": "dots"}])
def test_unrolling_and_rematerialisation_change_no_result(choice):
    rows = [jnp.asarray(x) for x in inputs([1, 1, 1, 2, 2, 0, 0])]

    def gradient(encoder):
        return jax.jit(jax.grad(lambda params: jnp.sum(encoder.apply(params, *rows)[0, :5] ** 3)))(PARAMS)

    expected, actual = gradient(VisionEncoder(CONFIG)), gradient(VisionEncoder(replace(CONFIG, **choice)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), actual, expected)


def test_parameters_of_all_layers_are_stacked():
    layers = PARAMS["params"]["layers"]
    assert {leaf.shape[0] for leaf in jax.tree.leaves(layers)} == {CONFIG.num_layers}


def test_bfloat16_features_differ_from_float32_by_rounding():
    rows = inputs([1, 1, 1, 2, 2, 2, 2])
    exact = encode(PARAMS, *rows)
    rounded = jax.jit(VisionEncoder(CONFIG, jnp.bfloat16).apply)(PARAMS, *rows)
    assert rounded.dtype == jnp.bfloat16
    # A bfloat16 rounding is 2 ** -8 of a value; a feature goes through about a dozen of them.
    error = np.linalg.norm(exact - rounded.astype(np.float32)) / np.linalg.norm(exact)
    assert 0 < error < 12 * 2**-8


def test_the_connector_output_has_the_width_of_the_decoder():
    features = jnp.ones((1, COUNT, CONFIG.hidden_size))
    out, _ = Connector(5).init_with_output(jax.random.key(0), features)
    assert out.shape == (1, COUNT, 5)
