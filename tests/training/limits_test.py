"""What counts as a bad step, and how it is described."""

from __future__ import annotations

import json
import math

import jax.numpy as jnp
import pytest

from uno_jax.training.limits import LimitsConfig, SkipLimit, spike_metrics, with_loss, write_description

SKIP = LimitsConfig(spike="skip", spike_factor=3.0)
GOOD = {"finite": True, "loss": 2.0, "flow": 1.5}
NOT_FINITE = {"finite": False, "loss": math.nan, "flow": 1.5, "caption": math.nan, "gradient_norm": math.inf}
SPIKE = {"finite": True, "spike": True, "spike_median": 2.0, "loss": 7.0}


@pytest.mark.parametrize(("loss", "spike"), [(5.9, False), (6.1, True), (math.inf, False), (math.nan, False)])
def test_a_spike_is_a_finite_loss_above_a_multiple_of_the_median(loss, spike):
    metrics = spike_metrics(jnp.float32(loss), jnp.array([2.0, 1.0, 100.0]), SKIP)
    assert (bool(metrics["spike"]), float(metrics["spike_median"])) == (spike, 2.0)


@pytest.mark.parametrize(("known", "spike"), [(2, False), (3, True)])
def test_there_is_no_spike_before_more_than_half_of_the_window_is_known(known, spike):
    recent = jnp.array([math.inf] * (4 - known) + [1.0] * known)
    assert bool(spike_metrics(jnp.float32(1e9), recent, SKIP)["spike"]) == spike


def test_a_run_that_does_not_look_for_spikes_has_no_metrics_of_them():
    assert spike_metrics(jnp.float32(9), jnp.ones(3), LimitsConfig()) == {}
    assert spike_metrics(jnp.float32(9), None, SKIP) == {}


@pytest.mark.parametrize(("applied", "expected"), [(True, [2.0, 3.0, 4.0]), (False, [1.0, 2.0, 3.0])])
def test_recent_losses_are_those_of_applied_steps(applied, expected):
    assert with_loss(jnp.array([1.0, 2.0, 3.0]), jnp.float32(4), jnp.array(applied)).tolist() == expected


def test_every_skipped_batch_is_a_warning_with_its_step():
    said: list[str] = []
    limit = SkipLimit(0, said.append)
    assert not any(limit.reached(step, metrics) for step, metrics in enumerate((GOOD, NOT_FINITE, GOOD, SPIKE)))
    assert said == [
        "warning: the batch of step 1 was skipped: the loss or gradient is not finite "
        "(loss nan, flow 1.5, caption nan, gradient_norm inf).",
        "warning: the batch of step 3 was skipped: the loss is a spike above a median of 2 (loss 7).",
    ]


def test_only_batches_skipped_in_a_row_reach_the_limit():
    limit = SkipLimit(2, lambda line: None)
    reached = [limit.reached(step, metrics) for step, metrics in enumerate((SPIKE, GOOD, NOT_FINITE, SPIKE))]
    assert reached == [False, False, False, True]


def test_a_description_names_what_is_not_finite_and_the_samples(tmp_path):
    sentence = write_description(tmp_path / "run", 3, NOT_FINITE, [["a", "b"], []])
    file = tmp_path / "run" / "bad_step_000003.json"
    assert sentence == f" Losses and samples are in {file}."
    assert json.loads(file.read_text()) == {
        "step": 3,
        "losses": {"loss": "nan", "flow": 1.5, "caption": "nan", "gradient_norm": "inf"},
        "not_finite": ["loss", "caption", "gradient_norm"],
        "samples": [["a", "b"], []],
    }


def test_a_description_that_cannot_be_written_is_a_sentence(tmp_path):
    (tmp_path / "file").touch()
    assert "could not be written (" in write_description(tmp_path / "file", 3, GOOD, [])
