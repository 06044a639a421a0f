"""Dense attention and its gradients against the definition."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uno_jax.attention.dense import dense_attention

BATCH, QUERIES, KEYS, HEADS, KV_HEADS, HEAD_DIM = 2, 5, 7, 4, 2, 8


def by_definition(query, key, value, mask):
    """Computes one head at a time, with a softmax over visible keys only, differentiated by JAX."""
    group = query.shape[2] // key.shape[2]
    heads = []
    for head in range(query.shape[2]):
        k, v = key[:, :, head // group], value[:, :, head // group]
        scores = query[:, :, head] @ k.swapaxes(1, 2) / np.sqrt(query.shape[-1])
        weights = jax.nn.softmax(scores, axis=-1, where=jnp.broadcast_to(mask, scores.shape))
        heads.append(weights @ v)
    return jnp.stack(heads, axis=2)


@pytest.fixture(scope="module")
def inputs():
    keys = jax.random.split(jax.random.key(0), 3)
    sizes = ((QUERIES, HEADS), (KEYS, KV_HEADS), (KEYS, KV_HEADS))
    return [jax.random.normal(k, (BATCH, *size, HEAD_DIM)) for k, size in zip(keys, sizes, strict=True)]


def some_mask() -> np.ndarray:
    mask = np.random.default_rng(0).random((BATCH, QUERIES, KEYS)) < 0.5
    mask[..., 0] = True
    return mask


MASKS = {
    "per row": jnp.array(some_mask()),
    "shared by the batch": jnp.array(some_mask()[:1]),
    "everything": jnp.ones((1, 1, 1), bool),
}


@pytest.mark.parametrize("name", MASKS)
def test_attention_and_its_gradients_equal_the_definition(name, inputs):
    def run(attention):
        def loss(*arrays):
            out = attention(*arrays, MASKS[name])
            return jnp.sum(jnp.sin(out)), out

        return jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)(*inputs)

    ((_, actual), gradients), ((_, expected), expected_gradients) = run(dense_attention), run(by_definition)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
    for gradient, wanted in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(gradient, wanted, rtol=1e-5, atol=1e-6)


def test_a_query_that_sees_nothing_gives_finite_outputs_and_gradients(inputs):
    mask = some_mask()
    mask[0, 1] = False
    gradients = jax.grad(lambda *arrays: jnp.sum(dense_attention(*arrays, jnp.array(mask)) ** 2), (0, 1, 2))(*inputs)
    assert all(np.isfinite(gradient).all() for gradient in gradients)
