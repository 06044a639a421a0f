"""The loop: metrics one step late, checkpoints of the right state, and stopping.

The step is a jitted one over a TrainState with one parameter. tests/run trains complete models.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from uno_jax.attention.metadata import TokenMetadata
from uno_jax.config import ConfigError
from uno_jax.parallel.mesh import MeshConfig, make_mesh
from uno_jax.parallel.parameters import with_shardings
from uno_jax.process.errors import UserError
from uno_jax.training.checkpoint_folders import find_checkpoint
from uno_jax.training.checkpoints import CheckpointConfig, Checkpoints, restore_state
from uno_jax.training.limits import Rewind, SkipLimit
from uno_jax.training.loop import Parts, Schedule, run_loop
from uno_jax.training.saving import Saver
from uno_jax.training.state import TrainState, create_state


class TinyBatch(NamedTuple):
    """The fields of a batch that the loop reads, and a value for the step."""

    understanding: TokenMetadata
    generation: TokenMetadata
    latent_loss: np.ndarray
    latent_index: np.ndarray
    value: np.ndarray


class Packed(NamedTuple):
    batch: TinyBatch
    sample_ids: list[list[str]]
    stats: dict[str, float]


class Numbers:
    """Iterator over batches 1, 2, 3, ..., up to `last`. The batches `bad` are infinite."""

    def __init__(self, *bad: int, last: int | None = None):
        self.count, self.bad, self.last = 0, bad, last

    def __next__(self) -> Packed:
        if self.count == self.last:
            raise StopIteration
        self.count += 1
        value = np.inf if self.count in self.bad else self.count
        tokens = TokenMetadata(*(np.ones((1, 3), np.int32) for _ in TokenMetadata._fields))
        batch = TinyBatch(tokens, tokens, np.ones((1, 3), bool), np.arange(3)[None], np.full((1,), value, np.float32))
        return Packed(batch, [[f"sample_{self.count}"]], {"padding/text": 0.5})

    def get_state(self) -> dict[str, Any]:
        return {"shard": {"next": self.count}}


def new_state() -> TrainState:
    return create_state({"weight": jnp.zeros(())}, ("",), optax.sgd(1.0), ema=False)


@jax.jit
def add(state: TrainState, batch: TinyBatch) -> tuple[TrainState, dict[str, jax.Array]]:
    """Adds the batch's value to the weight, and latches at a non-finite value."""
    value = jnp.sum(batch.value)
    applied = jnp.isfinite(value) & ~state.latched
    weight = state.trainable["weight"]
    state = state.replace(
        step=state.step + applied,
        trainable={"weight": jnp.where(applied, weight + value, weight)},
        latched=state.latched | ~jnp.isfinite(value),
    )
    return state, {"loss": value, "flow": value, "finite": jnp.isfinite(value), "latched": state.latched}


@jax.jit
def add_or_skip(state: TrainState, batch: TinyBatch) -> tuple[TrainState, dict[str, jax.Array]]:
    """Adds the batch's value to the weight, and skips a non-finite value."""
    value = jnp.sum(batch.value)
    finite = jnp.isfinite(value)
    weight = state.trainable["weight"]
    state = state.replace(
        step=state.step + 1, trainable={"weight": jnp.where(finite, weight + value, weight)}, skipped=state.skipped + 1
    )
    return state, {"loss": value, "finite": finite, "latched": state.latched}


@jax.jit
def add_up_to_four(state: TrainState, batch: TinyBatch) -> tuple[TrainState, dict[str, jax.Array]]:
    """Adds the batch's value to the weight, and latches at a value above 4, a spike."""
    value = jnp.sum(batch.value)
    latched = state.latched | (value > 4)
    weight = state.trainable["weight"]
    state = state.replace(
        step=state.step + ~latched, trainable={"weight": jnp.where(latched, weight, weight + value)}, latched=latched
    )
    spike = {"finite": jnp.array(True), "spike": value > 4, "spike_median": jnp.float32(2)}
    return state, {"loss": value, "latched": latched, **spike}


class Recorded:
    """Records the calls of the loop in order."""

    def __init__(self, checkpoints: Checkpoints, every: int = 0, **changes: Any):
        self.events: list[tuple] = []
        parts = {
            "train_step": add,
            "put": jax.device_put,
            "saver": Saver(checkpoints, CheckpointConfig(every=every)),
            "on_metrics": lambda step, metrics, counts: self.events.append(("metrics", step, metrics["loss"])),
            "on_evaluate": lambda step, state: self.events.append(("evaluate", step, float(state.trainable["weight"]))),
            "on_pictures": lambda step, params: self.events.append(("pictures", step)),
        }
        self.parts = Parts(**(parts | changes))


@pytest.fixture
def checkpoints(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=10, assets={"config.json": b"{}"})
    yield checkpoints
    checkpoints.close()


def restore(checkpoints: Checkpoints, step: int) -> tuple[TrainState, dict]:
    return restore_state(
        checkpoints.directory / str(step), with_shardings(new_state(), make_mesh(MeshConfig(), jax.devices()[:1]))
    )


def test_metrics_are_read_one_step_late(checkpoints):
    events: list[tuple] = []

    def step(state: TrainState, batch: TinyBatch) -> tuple:
        events.append(("dispatched", int(batch.value[0])))
        return add(state, batch)

    def on_metrics(step: int, metrics: dict, counts: Any) -> None:
        events.append(("read", step))

    recorded = Recorded(checkpoints, train_step=jax.transfer_guard("allow")(step), on_metrics=on_metrics)
    run_loop(new_state(), Numbers(), recorded.parts, Schedule(steps=3))
    assert events == [
        ("dispatched", 1),
        ("dispatched", 2),
        ("read", 1),
        ("dispatched", 3),
        ("read", 2),
        ("read", 3),
    ]


def test_callbacks_run_when_due_with_the_state_of_that_step(checkpoints):
    recorded = Recorded(checkpoints, every=2)
    schedule = Schedule(steps=4, evaluate_every=3, pictures_every=2)
    state, finished = run_loop(new_state(), Numbers(), recorded.parts, schedule)
    assert finished
    assert float(state.trainable["weight"]) == 1 + 2 + 3 + 4
    assert recorded.events == [
        ("evaluate", 0, 0.0),
        ("pictures", 0),
        ("metrics", 1, 1.0),
        ("metrics", 2, 2.0),
        ("pictures", 2),
        ("metrics", 3, 3.0),
        ("evaluate", 3, 6.0),
        ("metrics", 4, 4.0),
        ("evaluate", 4, 10.0),
        ("pictures", 4),
    ]
    assert [int(restore(checkpoints, step)[0].trainable["weight"]) for step in (2, 4)] == [3, 10]


def test_the_saved_data_position_is_that_of_the_saved_step(checkpoints):
    run_loop(new_state(), Numbers(), Recorded(checkpoints, every=2).parts, Schedule(steps=5))
    assert [restore(checkpoints, step)[1]["shard"]["next"] for step in (2, 4, 5)] == [2, 4, 5]


def test_counts_exclude_padding_and_context_images(checkpoints):
    counted = []
    recorded = Recorded(checkpoints, on_metrics=lambda step, metrics, counts: counted.append(counts))
    run_loop(new_state(), Numbers(), recorded.parts, Schedule(steps=1))
    assert counted == [(6, 1, {"padding/text": 0.5})]


def test_a_non_finite_step_ends_the_run_with_its_samples_and_the_state_before_it(checkpoints):
    recorded = Recorded(checkpoints)
    with pytest.raises(FloatingPointError) as error:
        run_loop(new_state(), Numbers(3), recorded.parts, Schedule(steps=9))
    message = str(error.value)
    assert message.startswith("step 3: the loss or gradient is not finite (loss inf, flow inf)")
    assert "row 0: sample_3" in message
    assert str(checkpoints.directory / "2") in message
    state, data = restore(checkpoints, 2)
    assert (float(state.trainable["weight"]), int(state.step), bool(state.latched)) == (3.0, 2, True)
    assert data == {"shard": {"next": 2}}
    assert [event for event in recorded.events if event[0] == "metrics"] == [("metrics", 1, 1.0), ("metrics", 2, 2.0)]


def test_a_non_finite_step_that_is_due_for_a_checkpoint_is_not_saved_as_that_step(checkpoints):
    with pytest.raises(FloatingPointError):
        run_loop(new_state(), Numbers(4), Recorded(checkpoints, every=2).parts, Schedule(steps=9))
    assert find_checkpoint(checkpoints.directory).name == "3"


def test_a_non_finite_step_is_described_in_the_workdir(checkpoints, tmp_path):
    with pytest.raises(
        FloatingPointError, match=r"The state .* Losses and samples are in .*bad_step_000003\.json\. The same"
    ):
        run_loop(new_state(), Numbers(3), Recorded(checkpoints, workdir=tmp_path / "run").parts, Schedule(steps=9))
    described = json.loads((tmp_path / "run" / "bad_step_000003.json").read_text())
    assert (described["not_finite"], described["samples"]) == (["loss", "flow"], [["sample_3"]])


def test_too_many_batches_skipped_in_a_row_end_the_run_and_delete_no_checkpoint(checkpoints):
    recorded = Recorded(checkpoints, every=1, train_step=add_or_skip, skip_limit=SkipLimit(3, lambda line: None))
    with pytest.raises(FloatingPointError) as error:
        run_loop(new_state(), Numbers(3, 4, 6, 7, 8), recorded.parts, Schedule(steps=20))
    message = str(error.value)
    assert message.startswith("3 batches in a row were skipped, the last one in step 8: the loss or gradient is not")
    assert "the newest checkpoint is of step 5" in message
    assert checkpoints.steps() == [1, 2, 5]


def test_a_checkpoint_that_was_due_at_a_skipped_batch_is_saved_after_the_next_good_one(checkpoints):
    recorded = Recorded(checkpoints, every=3, train_step=add_or_skip)
    run_loop(new_state(), Numbers(3), recorded.parts, Schedule(steps=5))
    assert checkpoints.steps() == [4, 5]
    assert restore(checkpoints, 4)[1] == {"shard": {"next": 4}}


def test_at_a_spike_the_loop_asks_to_go_back_with_the_data_after_its_batch(checkpoints):
    recorded = Recorded(checkpoints, every=3, train_step=add_up_to_four, rewinds=1)
    with pytest.raises(
        Rewind, match="Step 5: the loss is a spike above a median of 2 .* the checkpoint of step 3"
    ) as e:
        run_loop(new_state(), Numbers(), recorded.parts, Schedule(steps=9))
    assert e.value.data_state == {"shard": {"next": 5}}
    assert checkpoints.steps() == [3]


@pytest.mark.parametrize(("every", "rewinds"), [(3, 0), (0, 1)], ids=["no rewind left", "no checkpoint"])
def test_a_spike_ends_the_run_if_it_cannot_go_back(checkpoints, every, rewinds):
    recorded = Recorded(checkpoints, every=every, train_step=add_up_to_four, rewinds=rewinds)
    with pytest.raises(
        FloatingPointError, match=r"step 5: the loss is a spike .*\n.*\n.*\n.* Set limits\.spike to 'skip'"
    ):
        run_loop(new_state(), Numbers(), recorded.parts, Schedule(steps=9))
    assert restore(checkpoints, 4)[1] == {"shard": {"next": 4}}


class Broken(Numbers):
    """Batches of which the fourth cannot be made."""

    def __next__(self) -> Packed:
        if self.count == 3:
            raise UserError("file: record 9 cannot be read")
        return super().__next__()


def test_when_a_batch_cannot_be_made_the_state_is_saved(checkpoints):
    recorded = Recorded(checkpoints)
    with pytest.raises(UserError, match=r"record 9 cannot be read\. The state of step 3 is saved in .*/3$"):
        run_loop(new_state(), Broken(), recorded.parts, Schedule(steps=9))
    state, data = restore(checkpoints, 3)
    assert (float(state.trainable["weight"]), data) == (6.0, {"shard": {"next": 3}})
    assert [event for event in recorded.events if event[0] == "metrics"][-1] == ("metrics", 3, 3.0)


def test_when_the_first_batch_cannot_be_made_nothing_is_saved(checkpoints):
    numbers = Broken()
    numbers.count = 3
    with pytest.raises(UserError, match=r"record 9 cannot be read\. There is no checkpoint$"):
        run_loop(new_state(), numbers, Recorded(checkpoints).parts, Schedule(steps=9))
    assert checkpoints.steps() == []


def test_when_the_data_end_the_state_is_saved_and_the_message_says_what_to_do(checkpoints):
    recorded = Recorded(checkpoints)
    with pytest.raises(ConfigError, match="the data end after step 3 of 9, .* Set steps=3, or data.epochs=0"):
        run_loop(new_state(), Numbers(last=3), recorded.parts, Schedule(steps=9))
    state, data = restore(checkpoints, 3)
    assert (float(state.trainable["weight"]), data) == (6.0, {"shard": {"next": 3}})
    assert [event for event in recorded.events if event[0] == "metrics"][-1] == ("metrics", 3, 3.0)


class HangingNumbers(Numbers):
    """Never has batch 4."""

    def __next__(self) -> Packed:
        if self.count == 3:
            threading.Event().wait()
        return super().__next__()


def test_a_signal_while_the_data_hang_saves_the_last_state(checkpoints, monkeypatch):
    monkeypatch.setattr("uno_jax.training.loop._PATIENCE_FOR_DATA", 0.5)
    recorded = Recorded(checkpoints)
    kill = threading.Timer(1, os.kill, (os.getpid(), signal.SIGTERM))
    kill.start()
    state, finished = run_loop(new_state(), HangingNumbers(), recorded.parts, Schedule(steps=9))
    kill.join()
    assert (int(state.step), finished) == (3, False)
    saved, data = restore(checkpoints, 3)
    assert (float(saved.trainable["weight"]), data) == (6.0, {"shard": {"next": 3}})


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_saves_and_stops_the_run(checkpoints, signum):
    def on_metrics(step: int, metrics: dict, counts: Any) -> None:
        if step == 2:
            os.kill(os.getpid(), signum)

    before = signal.getsignal(signum)
    recorded = Recorded(checkpoints, on_metrics=on_metrics)
    state, finished = run_loop(new_state(), Numbers(), recorded.parts, Schedule(steps=9))
    assert not finished
    assert int(state.step) == 3  # step 3 was already dispatched when step 2 was read
    saved, data = restore(checkpoints, 3)
    assert float(saved.trainable["weight"]) == 6.0
    assert data == {"shard": {"next": 3}}
    assert signal.getsignal(signum) is before


def test_the_gradient_probe_uses_the_batch_of_the_next_step(checkpoints):
    @jax.jit
    def probe(state: TrainState, batch: TinyBatch) -> tuple:
        return state, {"gradient_norm/flow": jnp.sum(batch.value)}

    read = []
    recorded = Recorded(
        checkpoints,
        probe=probe,
        on_metrics=lambda step, metrics, counts: read.append((step, metrics.get("gradient_norm/flow"))),
    )
    run_loop(new_state(), Numbers(), recorded.parts, Schedule(steps=4, probe_every=2))
    assert read == [(1, 1.0), (2, None), (3, 3.0), (4, None)]


def test_a_loop_continues_from_the_step_of_its_state(checkpoints):
    numbers = Numbers()
    numbers.count = 2
    state = new_state().replace(step=jnp.int32(2), trainable={"weight": jnp.float32(3)})
    recorded = Recorded(checkpoints)
    state, _ = run_loop(state, numbers, recorded.parts, Schedule(steps=4))
    assert float(state.trainable["weight"]) == 1 + 2 + 3 + 4
    assert ("evaluate", 0, 0.0) not in recorded.events
