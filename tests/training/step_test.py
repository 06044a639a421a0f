"""The train step: updates, gradient accumulation, non-finite values, warm-up and loss weights."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from tests.helpers.made_up_plans import EDITING, RECONSTRUCTION, SECOND_ROUND, TEXT_TO_IMAGE, UNDERSTANDING, Sample
from tests.helpers.small_model import CAPACITIES, model_batch, quick_jit, small_model, small_params
from uno_jax.batch import Batch
from uno_jax.models.config import training_layout
from uno_jax.objectives.config import BalanceConfig, ObjectiveConfig
from uno_jax.training.limits import LimitsConfig
from uno_jax.training.optimizer import OptimizerConfig, ema_decay, make_optimizer
from uno_jax.training.state import UNO_TRAINABLE, TrainState, create_state, merge
from uno_jax.training.step import StepConfig, loss_weights, make_evaluation_step, make_train_step

STEPS = 10
# Epsilon is large, because Adam amplifies the rounding errors of gradients close to 0 to full updates.
OPTIMIZER = OptimizerConfig(learning_rate=0.01, schedule="cosine", epsilon=1e-3, ema_decay=0.5)
BASE = StepConfig(small_model(), ObjectiveConfig(answer_weight=0.5), OPTIMIZER, STEPS, seed=0)
ACCUMULATING = dataclasses.replace(BASE, optimizer=dataclasses.replace(OPTIMIZER, accumulation=2))
WARM_UP_STEPS = 2
# All features that BASE turns off, compiled as one program.
CAREFUL = dataclasses.replace(
    BASE,
    objective=ObjectiveConfig(balance=BalanceConfig(caption=0.5, visual=0.25)),
    optimizer=dataclasses.replace(OPTIMIZER, nonfinite="skip", metaquery_warmup_steps=WARM_UP_STEPS, weight_decay=0.1),
)
SPIKES = dataclasses.replace(BASE, limits=LimitsConfig(spike="skip"))


@functools.cache
def stepper(config: StepConfig):
    return quick_jit(make_train_step(config))


def new_state(config: StepConfig = BASE) -> TrainState:
    optimizer = make_optimizer(config.optimizer, config.steps)
    return create_state(small_params(config.model), UNO_TRAINABLE, optimizer, ema=True)


def batch_number(number: int) -> Batch:
    """Returns four unevenly filled rows that train every loss."""
    plans = (TEXT_TO_IMAGE, UNDERSTANDING, EDITING, SECOND_ROUND, RECONSTRUCTION)
    first, *rest = (Sample(plan, occurrence=5 * number + i) for i, plan in enumerate(plans))
    return model_batch([first, *rest[:1]], rest[1:2], rest[2:], [])


def not_finite(number: int) -> Batch:
    """Returns a batch with a NaN in one latent token."""
    batch = batch_number(number)
    batch.latent_moments[0, 0] = np.nan
    return batch


def run(config: StepConfig, state: TrainState, *batches: Batch) -> tuple[TrainState, dict[str, np.ndarray]]:
    """Returns the state after the batches and the metrics of the last one."""
    for batch in batches:
        state, metrics = stepper(config)(state, batch)
    return jax.device_get((state, metrics))


def assert_identical(actual, expected):
    """Requires bit for bit equality."""
    jax.tree.map(np.testing.assert_array_equal, actual, jax.device_get(expected))


def changed(before, after) -> set[str]:
    """Returns the paths of the leaves that changed."""
    before, after = (flatten_dict(jax.device_get(tree), sep="/") for tree in (before, after))
    assert before.keys() == after.keys()
    return {path for path in before if not np.array_equal(before[path], after[path])}


# An update


def test_every_trainable_leaf_changes_and_frozen_leaves_stay_bit_identical():
    state, _ = run(BASE, new_state(), *map(batch_number, range(3)))
    assert state.step == 3
    assert_identical(state.frozen, new_state().frozen)
    assert changed(new_state().trainable, state.trainable) == set(flatten_dict(state.trainable, sep="/"))


def test_the_same_batches_give_the_same_state_bit_for_bit():
    first, _ = run(BASE, new_state(), batch_number(0), batch_number(1))
    second, _ = run(BASE, new_state(), batch_number(0), batch_number(1))
    assert_identical(first, second)


def test_the_loss_is_the_weighted_sum_of_its_parts():
    _, metrics = run(BASE, new_state(), batch_number(0))
    parts = ("flow", "caption", "visual", "answer")
    np.testing.assert_allclose(metrics["loss"], sum(metrics[f"weight/{p}"] * metrics[p] for p in parts), rtol=1e-6)
    assert [float(metrics[f"weight/{p}"]) for p in parts] == [1.0, 0.25, 0.5, 0.5]


def test_splits_by_time_and_task_are_means_that_add_up_to_the_loss():
    _, metrics = run(BASE, new_state(), batch_number(0))
    for loss in ("flow", "caption", "visual"):
        for kind in ("t", "task"):
            names = [n for n in metrics if n.startswith(f"{loss}/") and n.startswith(f"{loss}/t0") == (kind == "t")]
            total = sum(metrics[name] * metrics[f"tokens/{name}"] for name in names)
            np.testing.assert_allclose(total / metrics[f"tokens/{loss}"], metrics[loss], rtol=1e-5)


def test_the_ema_follows_the_trainable_leaves_with_its_warm_up():
    states = [new_state()]
    for number in range(3):
        states.append(run(BASE, states[-1], batch_number(number))[0])
    for n, (before, after) in enumerate(zip(states, states[1:], strict=False)):
        decay = float(ema_decay(OPTIMIZER, jnp.array(n)))
        jax.tree.map(
            lambda old, new, average, d=decay: np.testing.assert_allclose(average, d * old + (1 - d) * new, atol=1e-6),
            before.ema,
            after.trainable,
            after.ema,
        )


def test_training_on_one_batch_lowers_its_loss():
    batch = batch_number(0)
    _, first = run(BASE, new_state(), batch)
    _, last = run(BASE, new_state(), *[batch] * 8)
    assert last["loss"] < first["loss"]


# Accumulation


def test_accumulation_equals_the_large_batch():
    """Float32 sums differ in order, so gradients (Adam's first moments) and updates agree to 1e-5 of a leaf's norm."""
    large, of_large = run(BASE, new_state(), batch_number(0))
    small, of_small = run(ACCUMULATING, new_state(), batch_number(0))
    assert of_large.keys() == of_small.keys()
    for name, value in of_large.items():
        np.testing.assert_allclose(of_small[name], value, rtol=1e-5, atol=1e-6, err_msg=name)
    start = jax.device_get(new_state().trainable)

    def compare(actual, expected, origin=0.0):
        assert np.linalg.norm(actual - expected) <= 1e-5 * np.linalg.norm(expected - origin)

    jax.tree.map(compare, small.opt_state, large.opt_state)
    jax.tree.map(compare, small.trainable, large.trainable, start)


def test_an_evaluation_in_microbatches_gives_the_losses_of_the_whole_batch():
    params = small_params(BASE.model)
    whole, parts = (quick_jit(make_evaluation_step(config))(params, batch_number(0)) for config in (BASE, ACCUMULATING))
    assert parts.keys() == whole.keys()
    for name, (total, count) in whole.items():
        np.testing.assert_allclose(parts[name][0], total, rtol=1e-5, atol=1e-6, err_msg=name)
        assert parts[name][1] == count


def test_an_evaluation_needs_less_memory_in_microbatches():
    def temporaries(config: StepConfig) -> int:
        step = jax.jit(make_evaluation_step(config))
        compiled = step.lower(small_params(config.model), batch_number(0)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporaries(ACCUMULATING) < 0.75 * temporaries(BASE)


def test_accumulation_accepts_rows_without_one_of_the_regions():
    batch = model_batch([TEXT_TO_IMAGE], [TEXT_TO_IMAGE], capacities=CAPACITIES | {"vit": 0})
    state = new_state()
    after, _ = jax.eval_shape(make_train_step(ACCUMULATING), state, batch)
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)


@pytest.mark.parametrize("config", [BASE, ACCUMULATING])
def test_gradients_of_bfloat16_leaves_are_summed_and_measured_in_float32(config):
    low = jax.tree.map(lambda x: x.astype(jnp.bfloat16), small_params(config.model))
    optimizer = make_optimizer(config.optimizer, config.steps)
    state = jax.eval_shape(lambda: create_state(low, UNO_TRAINABLE, optimizer, ema=True))
    after, metrics = jax.eval_shape(make_train_step(config), state, batch_number(0))
    assert metrics["gradient_norm"].dtype == jnp.float32
    assert jax.tree.map(lambda x: x.dtype, after) == jax.tree.map(lambda x: x.dtype, state)


# Non-finite values


def test_a_non_finite_batch_changes_nothing_and_latches():
    before, _ = run(BASE, new_state(), batch_number(0))
    after, metrics = run(BASE, before, not_finite(1))
    assert_identical(after, dataclasses.replace(before, latched=np.array(True)))
    assert not metrics["finite"]
    assert metrics["latched"]
    assert not np.isfinite(metrics["loss"])


def test_a_latched_state_never_changes():
    latched, _ = run(BASE, new_state(), batch_number(0), not_finite(1))
    after, metrics = run(BASE, latched, batch_number(2), not_finite(3), batch_number(4))
    assert_identical(after, latched)
    assert metrics["finite"]
    assert metrics["latched"]


def test_a_non_finite_value_in_any_microbatch_rejects_the_batch():
    before = new_state(ACCUMULATING)
    after, _ = run(ACCUMULATING, before, not_finite(0))
    assert_identical(after, dataclasses.replace(before, latched=np.array(True)))


def test_a_skipped_batch_is_counted_and_training_continues():
    without, _ = run(CAREFUL, new_state(CAREFUL), batch_number(0))
    skipped, metrics = run(CAREFUL, new_state(CAREFUL), batch_number(0), not_finite(1))
    assert_identical(
        skipped, dataclasses.replace(without, step=without.step + 1, skipped=np.array(1, without.skipped.dtype))
    )
    assert not metrics["finite"]
    assert not metrics["latched"]
    after, metrics = run(CAREFUL, skipped, batch_number(2))
    assert (after.step, after.skipped, metrics["skipped"]) == (3, 1, 1)
    assert changed(skipped.trainable, after.trainable)


@pytest.mark.parametrize(("median", "skipped"), [(0.001, 1), (1000.0, 0)])
def test_a_spike_of_the_loss_is_skipped(median, skipped):
    state = new_state(SPIKES).replace(recent_losses=jnp.full(3, median))
    after, metrics = run(SPIKES, state, batch_number(0))
    assert (after.step, after.skipped, metrics["spike"], after.latched) == (1, skipped, bool(skipped), False)
    assert changed(state.trainable, after.trainable) != bool(skipped)
    assert after.recent_losses[-1] == (np.float32(median) if skipped else metrics["loss"])


def test_a_skipped_batch_advances_neither_the_schedule_nor_a_warm_up():
    before, _ = run(CAREFUL, new_state(CAREFUL), batch_number(0))
    plain, of_plain = run(CAREFUL, before, batch_number(2))
    after_a_skip, of_skip = run(CAREFUL, before, not_finite(1), batch_number(2))
    assert of_plain["learning_rate"] == of_skip["learning_rate"]
    table, average = (tree["metaqueries"]["table"] for tree in (plain.trainable, plain.ema))
    assert_identical(after_a_skip.trainable["metaqueries"]["table"], table)
    assert_identical(after_a_skip.ema["metaqueries"]["table"], average)


# Warm-up of the metaqueries


def test_the_warm_up_updates_only_the_metaqueries_and_their_head():
    start = new_state(CAREFUL)
    warm, _ = run(CAREFUL, start, *map(batch_number, range(WARM_UP_STEPS)))
    assert changed(start.trainable, warm.trainable) == {
        "metaqueries/table",
        "metaqueries/head/kernel",
        "metaqueries/head/bias",
    }


def test_after_the_warm_up_everything_is_updated():
    warm, _ = run(CAREFUL, new_state(CAREFUL), *map(batch_number, range(WARM_UP_STEPS)))
    after, _ = run(CAREFUL, warm, batch_number(WARM_UP_STEPS))
    assert changed(warm.trainable, after.trainable) == set(flatten_dict(after.trainable, sep="/"))


def test_the_head_of_the_align_loss_is_warmed_up_with_the_metaqueries():
    config = dataclasses.replace(CAREFUL, model=small_model(align_layer=1), objective=ObjectiveConfig(align_weight=1.0))
    batch = model_batch([TEXT_TO_IMAGE], [EDITING], layout=training_layout(config.model))
    warm, metrics = run(config, new_state(config), batch)
    assert {path.split("/")[0] for path in changed(new_state(config).trainable, warm.trainable)} == {
        "metaqueries",
        "align_head",
    }
    assert metrics["weight/align"] == 1.0
    after, _ = run(config, warm, batch, batch)
    assert changed(warm.trainable, after.trainable) == set(flatten_dict(after.trainable, sep="/"))


# The anchor


ANCHORED = dataclasses.replace(BASE, objective=ObjectiveConfig(anchor_weight=10.0))


def anchored_state(dtype: str = "float32") -> TrainState:
    optimizer = make_optimizer(ANCHORED.optimizer, ANCHORED.steps)
    return create_state(small_params(ANCHORED.model), UNO_TRAINABLE, optimizer, ema=True, anchor=dtype)


def test_the_anchor_is_the_start_and_never_changes():
    before = anchored_state()
    after, metrics = run(ANCHORED, before, batch_number(0), batch_number(1))
    assert_identical(after.anchor, before.trainable)
    assert metrics["anchor"] > 0
    _, first = run(ANCHORED, before, batch_number(0))
    np.testing.assert_allclose(first["anchor"], 0, atol=1e-10)


def test_the_anchor_keeps_the_velocity_near_that_of_the_start():
    batches = [batch_number(0)] * 6
    _, held = run(ANCHORED, anchored_state(), *batches)
    nearly_free = dataclasses.replace(ANCHORED, objective=ObjectiveConfig(anchor_weight=1e-9))
    _, free = run(nearly_free, anchored_state(), *batches)
    assert held["anchor"] < 0.5 * free["anchor"]


def test_an_anchor_in_bfloat16_is_the_start_up_to_its_rounding():
    _, metrics = run(ANCHORED, anchored_state("bfloat16"), batch_number(0))
    assert 0 < metrics["anchor"] < 1e-3 * metrics["flow"]


def test_held_out_losses_measure_the_distance_from_the_start():
    state, _ = run(ANCHORED, anchored_state(), batch_number(0), batch_number(1))
    step = quick_jit(make_evaluation_step(ANCHORED))
    total, count = step(merge(state.trainable, state.frozen), batch_number(2), state.anchor)["anchor"]
    assert total / count > 0


# Weights


NORMS = {"flow": jnp.float32(2.0), "caption": jnp.float32(8.0), "visual": jnp.float32(0.5)}


def test_a_balanced_weight_is_the_fraction_of_the_flow_gradient_over_the_losss_own():
    state = dataclasses.replace(new_state(CAREFUL), gradient_norms=NORMS)
    _, metrics = run(CAREFUL, state, batch_number(0))
    np.testing.assert_allclose(metrics["weight/caption"], 0.5 * 2.0 / 8.0)
    np.testing.assert_allclose(metrics["weight/visual"], 0.25 * 2.0 / 0.5)
    weighted = sum(metrics[f"weight/{p}"] * metrics[p] for p in ("flow", "caption", "visual"))
    np.testing.assert_allclose(metrics["loss"], weighted, rtol=1e-6)


@pytest.mark.parametrize("unmeasured", ["flow", "caption"])
def test_the_fixed_weight_is_used_until_both_norms_are_measured(unmeasured):
    weights = loss_weights({**NORMS, unmeasured: jnp.float32(0)}, CAREFUL.objective)
    assert weights["caption"] == CAREFUL.objective.caption_weight


def test_a_loss_without_a_balance_keeps_its_weight():
    objective = ObjectiveConfig(caption_weight=0.3, balance=BalanceConfig(visual=0.1))
    assert loss_weights(NORMS, objective)["caption"] == 0.3


def test_the_balance_counts_the_flow_weight():
    objective = ObjectiveConfig(flow_weight=3.0, balance=BalanceConfig(caption=0.5))
    np.testing.assert_allclose(loss_weights(NORMS, objective)["caption"], 0.5 * 3.0 * 2.0 / 8.0)
