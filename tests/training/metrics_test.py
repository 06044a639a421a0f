"""Metrics: lines, the metrics file, throughput and event files."""

from __future__ import annotations

import io
import math
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rich.console
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from uno_jax.training.event_files import EventFileWriter, drop_later_events
from uno_jax.training.metrics import LogWindow, MetricsFile, MetricsWriter, Progress, Throughput, read_metrics


def test_a_line_holds_means_over_tokens_and_latest_values():
    window = LogWindow(every=2)
    first = {"flow": 1.0, "tokens/flow": 10.0, "learning_rate": 0.1, "loss": 3.0, "latched": 0.0}
    second = {"flow": 4.0, "tokens/flow": 20.0, "learning_rate": 0.2, "loss": 5.0, "latched": 0.0}
    assert window.add(1, first, {"filtered": 1.0, "padding/text": 0.2}) is None
    line = window.add(2, second, {"filtered": 2.0, "padding/text": 0.4})
    assert line == pytest.approx({"flow": 3.0, "learning_rate": 0.2, "loss": 4.0, "filtered": 3.0, "padding/text": 0.3})


def test_a_loss_without_tokens_is_omitted():
    line = LogWindow(every=1).add(1, {"caption": 0.0, "tokens/caption": 0.0, "loss": 1.0}, {})
    assert line == {"loss": 1.0}


def test_a_line_does_not_include_the_previous_one():
    window = LogWindow(every=1)
    window.add(1, {"loss": 1.0, "gradient_norm/flow": 2.0}, {})
    assert window.add(2, {"loss": 3.0}, {}) == {"loss": 3.0}


def test_the_file_keeps_the_lines_of_a_killed_run_and_drops_steps_that_will_be_repeated(tmp_path):
    path = tmp_path / "metrics.jsonl"
    file = MetricsFile(path)
    for step in (0, 2, 4):
        file.write(step, {"loss": float(step)})
    file.close()
    with path.open("a") as cut_off:
        cut_off.write('{"step": 6, "lo')
    MetricsFile(path, resume_step=2).close()
    assert read_metrics(path) == [{"step": 0, "loss": 0.0}, {"step": 2, "loss": 2.0}]


def test_a_new_run_drops_all_earlier_lines(tmp_path):
    path = tmp_path / "metrics.jsonl"
    MetricsFile(path).write(0, {"held_out/flow": 99.0})
    MetricsFile(path).close()
    assert read_metrics(path) == []
    assert list(tmp_path.iterdir()) == [path]


def test_a_bad_line_costs_only_itself_and_is_reported(tmp_path):
    path, said = tmp_path / "metrics.jsonl", []
    good = [b'{"step": %d}' % step for step in range(1, 5)]
    bad = [b'{"step": 2, "lo', b"\xff\xfe", b"[1, 2]", b'{"step": "2"}', b'{"loss": 1.0}', b"", b"1" * 5000]
    path.write_bytes(b"\n".join([good[0], *bad, *good[1:], b'{"step": 5, "lo']))
    assert [line["step"] for line in read_metrics(path)] == [1, 2, 3, 4]
    MetricsFile(path, resume_step=3, say=said.append).close()
    assert path.read_bytes() == b"\n".join(good[:3]) + b"\n"
    assert said == [f"{path}: not a metric of a step, dropped: line 2, 3, 4, 5, 6, 7, 8."]


def test_what_cannot_be_written_is_reported_once_and_written_later(tmp_path):
    said: list[str] = []
    writer = MetricsWriter(tmp_path, tensorboard=True, say=said.append)
    writer.write(1, {"loss": 1.0})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "metrics.jsonl").stat().st_size + 5, before[1]))
    try:
        for step in (2, 3):
            writer.write(step, {"loss": float(step)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    for step in (4, 5):
        writer.write(step, {"loss": float(step)})
    writer.close()
    assert said == [
        f"{name} cannot be written (File too large). Training goes on without."
        for name in ("metrics.jsonl", "TensorBoard events")
    ]
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4, 5]
    assert steps_of_events(tmp_path / "tensorboard") == [1, 2, 3, 4, 5]


def test_what_cannot_be_written_until_the_end_is_reported_and_the_other_files_are_closed(tmp_path):
    said: list[str] = []
    writer = MetricsWriter(tmp_path, tensorboard=True, say=said.append)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        writer.write(1, {"loss": 1.0})
        writer.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(said) == 2


def test_events_after_the_resumed_step_stand_once(tmp_path):
    for resumed, steps in ((0, (1, 2, 3, 4)), (2, (3, 4, 5)), (4, (5, 6))):
        writer = MetricsWriter(tmp_path, resume_step=resumed, tensorboard=True)
        for step in steps:
            writer.write(step, {"loss": float(step), "flow": 0.0})
        writer.close()
    (first, *_) = sorted((tmp_path / "tensorboard").iterdir())
    with first.open("ab") as cut_off:
        cut_off.write(bytes(7))
    assert steps_of_events(tmp_path / "tensorboard") == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4, 5, 6]


def test_a_new_run_drops_all_earlier_events(tmp_path):
    for _ in range(2):
        writer = MetricsWriter(tmp_path, tensorboard=True)
        writer.write(0, {"loss": 1.0})
        writer.close()
    assert steps_of_events(tmp_path / "tensorboard") == [0]


@given(st.lists(st.integers(0, 9), max_size=6), st.integers(1, 9), st.integers(0, 300))
@settings(max_examples=50)
def test_whole_events_up_to_the_resumed_step_are_kept_in_a_file_that_was_cut_anywhere(tmp_path_factory, steps, at, cut):
    directory = tmp_path_factory.mktemp("events")
    writer = EventFileWriter(directory)
    for step in steps:
        writer.write_scalars(step, {"loss": float(step)})
    writer.close()
    (file,) = directory.iterdir()
    os.truncate(file, max(file.stat().st_size - cut, 0))
    whole = steps_of_events(directory)
    drop_later_events(directory, at)
    assert steps_of_events(directory) == [step for step in whole if step <= at]


def steps_of_events(directory: Path) -> list[int]:
    events = EventAccumulator(str(directory), purge_orphaned_data=False).Reload()
    return [event.step for event in events.Tensors("loss")] if "loss" in events.Tags()["tensors"] else []


def test_a_non_finite_metric_is_still_json(tmp_path):
    MetricsFile(tmp_path / "m.jsonl").write(1, {"loss": math.nan, "flow": math.inf})
    assert read_metrics(tmp_path / "m.jsonl") == [{"step": 1, "loss": "nan", "flow": "inf"}]


def test_throughput_excludes_the_step_that_compiled():
    speed = Throughput()
    assert speed.update(1, 100, 2, now=50.0)["tokens_per_second"] == 0
    assert speed.update(2, 100, 2, now=52.0) == pytest.approx(
        {"tokens_per_second": 50.0, "images_per_second": 1.0, "seconds_per_step": 2.0}
    )


def test_the_progress_line_shows_losses_that_have_tokens_and_the_time_left():
    out = io.StringIO()
    progress = Progress(rich.console.Console(file=out, width=200), steps=10, every=2)
    metrics = {"flow": 0.5, "tokens/flow": 4.0, "caption": 0.0, "tokens/caption": 0.0}
    for step in (1, 2):
        progress.update(step, metrics, tokens=100, images=3)
    progress.close()
    (line,) = out.getvalue().splitlines()
    assert line.startswith("step 2/10  flow 0.5000  ")
    assert "caption" not in line
    assert line.endswith("left")


def test_tensorboard_reads_the_scalars_of_metrics_jsonl(tmp_path):
    lines = [{"step": 1, "loss": 1.5, "held_out/flow": 0.1}, {"step": 3, "loss": -2e-9}, {"step": 4, "loss": math.inf}]
    writer = MetricsWriter(tmp_path, tensorboard=True)
    for line in lines:
        writer.write(line["step"], {name: value for name, value in line.items() if name != "step"})
    writer.close()

    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [scalars(events, step) for step in (1, 3, 4)] == [
        {name: np.float32(value) for name, value in line.items() if name != "step"}
        for line in read_metrics(tmp_path / "metrics.jsonl")
    ]


def scalars(events: EventAccumulator, step: int) -> dict[str, np.float32]:
    """Returns the scalars of a step by name, as read by TensorBoard."""
    return {
        name: event.tensor_proto.float_val[0]
        for name in events.Tags()["tensors"]
        for event in events.Tensors(name)
        if event.step == step
    }


def test_event_files_need_no_tensorflow(tmp_path):
    program = (
        "import pathlib, sys\n"
        "sys.modules['tensorflow'] = None  # as if it were not installed\n"
        "from uno_jax.training.metrics import MetricsWriter\n"
        "writer = MetricsWriter(sys.argv[1], tensorboard=True)\n"
        "writer.write(1, {'loss': 1.0})\n"
        "writer.close()\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)
    assert list((tmp_path / "tensorboard").glob("events*"))


def test_an_event_file_rejects_other_summaries(tmp_path):
    with pytest.raises(NotImplementedError, match="scalars only"):
        EventFileWriter(tmp_path).write_texts(1, {"prompt": "a red heart"})
