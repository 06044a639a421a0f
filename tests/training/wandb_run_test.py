"""Metrics at Weights & Biases. Without the library (`pip install '.[wandb]'`), only its refusal is tested."""

from __future__ import annotations

import json
import struct
from collections import defaultdict
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from uno_jax.config import ConfigError
from uno_jax.training.metrics import MetricsWriter, read_metrics
from uno_jax.training.wandb_run import WandbRun, check_wandb

with_library = pytest.mark.skipif(find_spec("wandb") is None, reason="needs wandb: pip install '.[wandb]'")
without_library = pytest.mark.skipif(find_spec("wandb") is not None, reason="wandb is installed")


def test_no_project_needs_no_library():
    check_wandb("")


@without_library
def test_a_missing_library_is_refused_with_its_installation():
    with pytest.raises(ConfigError, match=r"config.wandb is 'mine', .* not installed: pip install '\.\[wandb\]'"):
        check_wandb("mine")


@without_library
def test_a_folder_that_is_called_wandb_is_not_the_library(tmp_path, monkeypatch):
    (tmp_path / "wandb").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="not installed"):
        check_wandb("mine")


@pytest.fixture
def offline(monkeypatch) -> Iterator[None]:
    """The library's settings are made anew for the test. They last as long as its process beside this one."""
    import wandb

    wandb.teardown()
    monkeypatch.setenv("WANDB_MODE", "offline")
    yield
    wandb.teardown()


def write(workdir: Path, steps: range, resume_step: int = 0) -> None:
    run = WandbRun("mine", workdir, {"steps": 4}, resume_step)
    writer = MetricsWriter(workdir, resume_step=resume_step, tensorboard=False, wandb_run=run)
    for step in steps:
        writer.write(step, {"loss": 1 / (step + 1)})
        if step % 2 == 0:
            writer.write(step, {"held_out/flow": float(step)})
    writer.close()


def end_process() -> None:
    """Ends the library's process, which writes the last bytes."""
    import wandb

    wandb.teardown()


def records(content: bytes) -> Iterator[bytes]:
    """Yields the records of a file of the library: blocks of 32 KiB, with parts of records that have a header each."""
    block, header = 2**15, struct.Struct("<IHB")  # checksum, length, kind: whole, first, middle or last part
    at, record = header.size, b""  # after the file's own header
    while at + header.size <= len(content):
        if block - at % block < header.size:
            at += block - at % block
            continue
        _, length, kind = header.unpack_from(content, at)
        at += header.size
        record += content[at : at + length]
        at += length
        if kind in (1, 4):
            yield record
            record = b""


def written(file: Path) -> dict[int, dict[str, float]]:
    """Reads the metrics of a run that was kept offline, by step."""
    from wandb.proto.wandb_internal_pb2 import Record

    found: defaultdict[int, dict[str, float]] = defaultdict(dict)
    for content in records(file.read_bytes()):
        items = Record.FromString(content).history.item
        values = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
        if values:
            found[values["_step"]] |= {name: value for name, value in values.items() if not name.startswith("_")}
    return found


@with_library
def test_metrics_are_those_of_metrics_jsonl(tmp_path, offline):
    write(tmp_path, range(1, 4))
    end_process()
    (file,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    expected: defaultdict[int, dict[str, float]] = defaultdict(dict)
    for line in read_metrics(tmp_path / "metrics.jsonl"):
        expected[line["step"]] |= {name: value for name, value in line.items() if name != "step"}
    assert written(file) == expected
    assert expected[2] == {"loss": 1 / 3, "held_out/flow": 2.0}


@with_library
def test_a_resumed_run_goes_on_under_its_id_and_a_new_run_has_another(tmp_path, offline):
    ids = []
    for resume_step in (0, 2, 0):
        write(tmp_path, range(resume_step + 1, resume_step + 3), resume_step)
        ids.append((tmp_path / "wandb_id.txt").read_text())
    assert ids[0] == ids[1] != ids[2]
    names = {file.stem for file in (tmp_path / "wandb").glob("offline-run-*/*.wandb")}
    assert names == {f"run-{run_id}" for run_id in ids}


@with_library
def test_a_run_that_cannot_be_opened_is_one_sentence(tmp_path, offline, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_MODE", "online")
    with pytest.raises(ConfigError, match="the run cannot be opened .*: run `wandb login`, or set the environment"):
        WandbRun("mine", tmp_path, {}, 0)
