"""Trainable and frozen parameters, selected by path."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.small_model import small_model
from uno_jax.training.initialise import abstract_params
from uno_jax.training.state import EVERYTHING, UNO_TRAINABLE, create_state, merge, partition

PARAMS = {
    "decoder": {"norm": {"generation": jnp.ones(2), "understanding": jnp.zeros(2)}, "norms": jnp.ones(1)},
    "latent_in": {"kernel": jnp.ones((2, 2)), "bias": jnp.zeros(2)},
}
PATHS = ["/".join(path) for path in flatten_dict(PARAMS)]


@given(trainable=st.lists(st.sampled_from([*PATHS, "decoder", "decoder/norm", "latent_in"])))
def test_merge_is_the_inverse_of_partition(trainable):
    train, frozen = partition(PARAMS, trainable)
    assert not set(flatten_dict(train)) & set(flatten_dict(frozen))
    whole = merge(train, frozen)
    assert jax.tree.structure(whole) == jax.tree.structure(PARAMS)
    assert all(a is b for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(PARAMS), strict=True))


def test_a_prefix_matches_complete_names():
    train, _ = partition(PARAMS, ["decoder/norm"])
    assert set(flatten_dict(train, sep="/")) == {"decoder/norm/generation", "decoder/norm/understanding"}


def test_everything_leaves_nothing_frozen():
    train, frozen = partition(PARAMS, EVERYTHING)
    assert jax.tree.structure(train) == jax.tree.structure(PARAMS)
    assert not frozen


def test_a_prefix_that_no_parameter_has_is_rejected():
    with pytest.raises(ValueError, match=r"trainable names \['latent'\], but no parameter has that prefix\. Parts are"):
        partition(PARAMS, ["latent_in", "latent"])


def test_a_model_without_metaqueries_has_none_to_train():
    params = abstract_params(small_model(num_metaqueries=0))
    train, _ = partition(params, UNO_TRAINABLE)
    assert "metaqueries" not in train


def test_uno_trains_the_generation_expert_the_latent_projections_the_timestep_embedder_and_the_metaqueries():
    train, frozen = partition(abstract_params(small_model()), UNO_TRAINABLE)
    assert set(train) == {"decoder", "latent_in", "latent_out", "timestep_embedder", "metaqueries"}
    assert set(train["decoder"]["layers"]) == set(train["decoder"]["norm"]) == {"generation"}
    assert set(frozen) == {"decoder", "vision", "connector"}
    assert set(frozen["decoder"]) == {"embedding", "head", "layers", "norm"}
    assert set(frozen["decoder"]["layers"]) == set(frozen["decoder"]["norm"]) == {"understanding"}


def test_only_trainable_leaves_have_optimizer_state_and_an_ema():
    state = create_state(PARAMS, ["latent_in"], optax.adam(0.1), ema=True)
    shapes = [leaf.shape for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim]
    assert sorted(shapes) == sorted(2 * [leaf.shape for leaf in jax.tree.leaves(PARAMS["latent_in"])])
    assert set(state.ema) == {"latent_in"}


def test_the_ema_is_float32_for_any_parameter_dtype():
    params = {"latent_in": jnp.full(3, 0.1, jnp.bfloat16)}
    state = create_state(params, EVERYTHING, optax.adam(0.1), ema=True)
    assert state.trainable["latent_in"].dtype == jnp.bfloat16
    assert state.ema["latent_in"].dtype == jnp.float32
    np.testing.assert_array_equal(state.ema["latent_in"], params["latent_in"].astype(jnp.float32))


def test_a_new_state_can_be_donated():
    state = create_state(PARAMS, EVERYTHING, optax.adam(0.1), ema=True, anchor="float32")
    trees = (state.trainable, state.opt_state, state.ema, state.anchor)
    buffers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(trees)]
    assert len(set(buffers)) == len(buffers)


def test_without_a_decay_there_is_no_ema():
    assert create_state(PARAMS, EVERYTHING, optax.adam(0.1), ema=False).ema is None


def test_the_anchor_is_a_copy_of_the_trainable_leaves_in_its_dtype():
    state = create_state(PARAMS, ["latent_in"], optax.adam(0.1), ema=False, anchor="bfloat16")
    assert set(state.anchor) == {"latent_in"}
    assert state.anchor["latent_in"]["kernel"].dtype == jnp.bfloat16
    assert create_state(PARAMS, EVERYTHING, optax.adam(0.1), ema=False).anchor is None
