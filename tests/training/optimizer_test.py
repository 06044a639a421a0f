"""AdamW against an implementation by hand, Muon, schedules, bfloat16 moments, and the EMA decay."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from uno_jax.training.optimizer import (
    OptimizerConfig,
    decay_mask,
    ema_decay,
    learning_rate_schedule,
    make_optimizer,
)

PARAMS = {"layer": {"kernel": jnp.array([[1.0, -2.0]]), "bias": jnp.array([0.5])}, "norm": {"scale": jnp.array([2.0])}}
GRADIENTS = {
    "layer": {"kernel": jnp.array([[0.3, -0.1]]), "bias": jnp.array([0.2])},
    "norm": {"scale": jnp.array([-0.4])},
}


def updates_of(config: OptimizerConfig, gradients: list, steps: int = 10) -> list:
    """Returns the updates of successive gradients at constant parameters."""
    optimizer = make_optimizer(config, steps)
    state, updates = optimizer.init(PARAMS), []
    for gradient in gradients:
        update, state = optimizer.update(gradient, state, PARAMS)
        updates.append(update)
    return updates


def assert_trees_close(actual, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), actual, expected)


def test_updates_equal_adam_written_by_hand():
    config = OptimizerConfig(learning_rate=0.1, beta1=0.8, beta2=0.9, epsilon=0.01, clip_norm=0.0)
    second = jax.tree.map(lambda g: 2 * g, GRADIENTS)
    for count, update in enumerate(updates_of(config, [GRADIENTS, second]), start=1):

        def by_hand(g: jax.Array, count: int = count) -> jax.Array:
            gradients = [g, 2 * g][:count]
            mean = sum(0.2 * 0.8 ** (count - 1 - i) * x for i, x in enumerate(gradients)) / (1 - 0.8**count)
            square = sum(0.1 * 0.9 ** (count - 1 - i) * x**2 for i, x in enumerate(gradients)) / (1 - 0.9**count)
            return -0.1 * mean / (jnp.sqrt(square) + 0.01)

        assert_trees_close(update, jax.tree.map(by_hand, GRADIENTS))


def test_a_gradient_over_the_norm_is_scaled_down_globally():
    config = OptimizerConfig(learning_rate=0.1, epsilon=0.01, clip_norm=0.05)
    norm = optax.global_norm(GRADIENTS)
    clipped = jax.tree.map(lambda g: g * 0.05 / norm, GRADIENTS)
    unclipped_config = dataclasses.replace(config, clip_norm=0.0)
    assert_trees_close(updates_of(config, [GRADIENTS]), updates_of(unclipped_config, [clipped]))


def test_a_gradient_under_the_norm_is_unchanged():
    config = OptimizerConfig(epsilon=0.01, clip_norm=10.0)
    unclipped = dataclasses.replace(config, clip_norm=0.0)
    assert_trees_close(updates_of(config, [GRADIENTS]), updates_of(unclipped, [GRADIENTS]))


def test_weight_decay_is_decoupled_and_spares_biases_and_norm_scales():
    plain = OptimizerConfig(learning_rate=0.1, epsilon=0.01)
    (with_decay,) = updates_of(dataclasses.replace(plain, weight_decay=0.5), [GRADIENTS])
    (without,) = updates_of(plain, [GRADIENTS])
    np.testing.assert_allclose(
        with_decay["layer"]["kernel"], without["layer"]["kernel"] - 0.1 * 0.5 * PARAMS["layer"]["kernel"], rtol=1e-5
    )
    assert with_decay["layer"]["bias"] == without["layer"]["bias"]
    assert with_decay["norm"] == without["norm"]


def test_kernels_and_tables_decay():
    tree = {"metaqueries": {"table": 0, "head": {"kernel": 0, "bias": 0}}, "decoder": {"embedding": 0}}
    assert decay_mask(tree) == {
        "metaqueries": {"table": True, "head": {"kernel": True, "bias": False}},
        "decoder": {"embedding": True},
    }


@pytest.mark.parametrize("params", ["float32", "bfloat16"])
@pytest.mark.parametrize("moments", ["float32", "bfloat16"])
def test_moments_are_stored_as_configured_and_updates_are_float32_for_any_parameters(moments, params):
    optimizer = make_optimizer(OptimizerConfig(moment_dtype=moments), 10)
    trained = jax.tree.map(lambda x: x.astype(params), PARAMS)
    state = optimizer.init(trained)
    for _ in range(2):
        stored = [leaf for leaf in jax.tree.leaves(state) if leaf.ndim]
        assert len(stored) == 2 * len(jax.tree.leaves(PARAMS))
        assert {leaf.dtype for leaf in stored} == {jnp.dtype(moments)}
        updates, state = optimizer.update(GRADIENTS, state, trained)
        assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype("float32")}


def test_rounding_moments_to_bfloat16_changes_an_update_only_by_their_precision():
    full = OptimizerConfig(learning_rate=0.1, epsilon=0.01)
    low = dataclasses.replace(full, moment_dtype="bfloat16")
    for i, (rounded, exact) in enumerate(
        zip(updates_of(low, [GRADIENTS] * 3), updates_of(full, [GRADIENTS] * 3), strict=True)
    ):
        # bfloat16 has eight significant bits. The first update uses no stored moments.
        tolerance = 1e-6 if i == 0 else 2**-7
        jax.tree.map(lambda a, b, t=tolerance: np.testing.assert_allclose(a, b, rtol=t), rounded, exact)


def rates(steps: list[int], total: int, **config) -> list[float]:
    schedule = learning_rate_schedule(OptimizerConfig(**{"learning_rate": 1.0} | config), total)
    return [float(schedule(step)) for step in steps]


def test_a_constant_rate_without_warm_up_is_constant():
    assert rates([0, 5, 10], 10) == [1.0, 1.0, 1.0]


def test_warm_up_rises_in_equal_steps_and_its_first_step_moves():
    np.testing.assert_allclose(rates([0, 1, 2, 3, 4, 9], 10, warmup_steps=4), [0.25, 0.5, 0.75, 1.0, 1.0, 1.0])


def test_the_cosine_goes_from_the_rate_after_warm_up_to_the_final_rate_at_the_last_step():
    actual = rates([2, 6, 10], 10, schedule="cosine", warmup_steps=2, final_learning_rate=0.1)
    np.testing.assert_allclose(actual, [1.0, 0.55, 0.1], rtol=1e-6)


def test_a_cosine_from_a_rate_of_zero_stays_there():
    assert rates([0, 5, 10], 10, learning_rate=0.0, schedule="cosine", warmup_steps=2) == [0.0, 0.0, 0.0]


def test_a_warm_up_of_one_step_has_no_effect():
    assert rates([0, 1], 10, warmup_steps=1) == [1.0, 1.0]


def test_a_warm_up_longer_than_the_run_is_rejected():
    with pytest.raises(ValueError, match="optimizer.warmup_steps is 11, more than the 10 steps of the run"):
        rates([0], 10, warmup_steps=11)


@pytest.mark.parametrize(("updates", "expected"), [(0, 1 / 10), (8, 9 / 18), (10**6, 0.99)])
def test_the_ema_decay_warms_up(updates, expected):
    np.testing.assert_allclose(ema_decay(OptimizerConfig(ema_decay=0.99), jnp.array(updates)), expected, rtol=1e-6)


def test_muon_makes_all_directions_of_a_stacked_kernel_equally_long():
    gradient = jax.random.normal(jax.random.key(0), (2, 6, 4)) * jnp.array([10.0, 1.0, 1.0, 1.0])
    params = {"layers": {"query": {"kernel": jnp.zeros((2, 6, 4))}}}
    optimizer = make_optimizer(OptimizerConfig(rule="muon", learning_rate=1.0, clip_norm=0.0), 10)
    updates, _ = optimizer.update(jax.tree.map(lambda _: gradient, params), optimizer.init(params), params)
    lengths = np.linalg.svd(updates["layers"]["query"]["kernel"], compute_uv=False) / (0.2 * 6**0.5)
    assert lengths.shape == (2, 4)
    assert np.all((lengths > 0.6) & (lengths < 1.3))  # five iterations do not converge fully, by design
    spread = np.linalg.svd(gradient, compute_uv=False)
    assert np.all(spread[:, 0] > 10 * spread[:, -1])


def test_muon_leaves_all_but_the_kernels_of_layers_to_adam():
    params = {**PARAMS, "embedding": jnp.ones((3, 2)), "layers": {"norm": {"scale": jnp.ones(2)}}}
    gradients = jax.tree.map(lambda leaf: 0.1 * leaf, params)
    updates = []
    for rule in ("adamw", "muon"):
        optimizer = make_optimizer(OptimizerConfig(rule=rule, learning_rate=0.1), 10)
        updates.append(optimizer.update(gradients, optimizer.init(params), params)[0])
    assert_trees_close(*updates)
