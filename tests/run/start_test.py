"""Initial parameters of a run, trained parameters, and rejected starts."""

from __future__ import annotations

import io
import json
import shutil

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from rich.console import Console

from configs import openmoji_pretrain
from tests.helpers.tiny_run import (
    quiet,
    saved,
    tiny,
    tiny_uno,
)
from uno_jax.config import ConfigError
from uno_jax.interop.load import load_model
from uno_jax.parallel.mesh import make_mesh
from uno_jax.process.errors import UserError
from uno_jax.run.config import with_local_paths
from uno_jax.run.run import run
from uno_jax.run.start import start_params
from uno_jax.training.checkpoint_folders import find_checkpoint
from uno_jax.training.initialise import abstract_params
from uno_jax.training.metrics import read_metrics
from uno_jax.training.state import ADAPTERS_TRAINABLE
from uno_jax.training.stored_trees import restore_tree

# Without the programs of held-out losses and of gradient norms.
UNMEASURED = {"evaluation.records": 0, "objective.balance.every": 0}


def test_frozen_parameters_stay_and_trainable_parameters_change(dataset, unbroken):
    config = tiny_uno(dataset)
    start = start_params(config, make_mesh(config.mesh)).params
    before = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(start)}
    after = saved(unbroken, 6, "params")
    moved = {name for name in after if not np.array_equal(before[name], after[name])}
    assert all("understanding" not in name and "vision" not in name and "embedding" not in name for name in moved)
    assert any("generation" in name for name in moved)
    assert any("metaqueries" in name for name in moved)


def test_uno_starts_from_a_pretrain_run(dataset, tmp_path):
    pretrain = tiny(openmoji_pretrain.get_config(), dataset, steps=2, **UNMEASURED)
    run(pretrain, tmp_path / "pretrain", console=quiet())
    config = tiny_uno(dataset, init_from=str(tmp_path / "pretrain"))
    start = start_params(config, make_mesh(config.mesh)).params
    trained = restore_tree(find_checkpoint(tmp_path / "pretrain") / "params", abstract_params(pretrain.model))
    jax.tree.map(np.testing.assert_array_equal, {k: v for k, v in start.items() if k != "metaqueries"}, trained)
    assert start["metaqueries"]["table"].shape == (4, 16)


def test_a_start_from_another_model_is_rejected_with_the_fields(dataset, unbroken):
    config = tiny_uno(
        dataset, init_from=str(unbroken), **{"model.decoder.mlp_size": 24, "model.prediction": "velocity"}
    )
    with pytest.raises(ConfigError) as error:
        start_params(config, make_mesh(config.mesh))
    assert "config.model.decoder.mlp_size is 24, in the checkpoint 16" in str(error.value)
    assert "config.model.prediction is 'velocity', in the checkpoint 'x0'" in str(error.value)


def test_adapters_are_added_to_a_checkpoint_without_them_and_never_dropped(dataset, unbroken, tmp_path):
    adapters = {"model.decoder.adapter_rank": 2, "trainable": ADAPTERS_TRAINABLE}
    assert run(tiny_uno(dataset, init_from=str(unbroken), steps=1, **adapters, **UNMEASURED), tmp_path, console=quiet())
    base, adapted = saved(unbroken, 6, "params"), saved(tmp_path, 1, "params")
    assert {name for name in adapted if "adapters" in name} == adapted.keys() - base.keys()
    expert = [name for name in base if "layers']['generation" in name]
    for name in expert:
        np.testing.assert_array_equal(adapted[name], base[name], err_msg=name)
    assert "adapters" in load_model(tmp_path).params["decoder"]["layers"]["generation"]
    again = tiny_uno(dataset, init_from=str(tmp_path), **adapters)
    loaded = start_params(again, make_mesh(again.mesh)).params["decoder"]["layers"]["generation"]["adapters"]
    for path, leaf in flatten_dict(loaded, sep="']['").items():
        np.testing.assert_array_equal(leaf, adapted[f"['decoder']['layers']['generation']['adapters']['{path}']"])
    without = tiny_uno(dataset, init_from=str(tmp_path))
    with pytest.raises(ConfigError, match="adapter_rank is 0, in the checkpoint 2"):
        start_params(without, make_mesh(without.mesh))


def test_a_missing_start_is_rejected(dataset, tmp_path):
    config = tiny_uno(dataset, init_from=str(tmp_path / "nothing"))
    with pytest.raises(ConfigError, match="config.init_from: .*nothing: no checkpoint found"):
        start_params(config, make_mesh(config.mesh))


@pytest.fixture
def without_test_split(dataset, tmp_path):
    shutil.copytree(dataset, tmp_path / "data")
    (tmp_path / "data" / "tasks-test.npy").unlink()
    return tmp_path / "data"


def test_a_run_that_reads_no_held_out_records_needs_no_held_out_split(without_test_split, tmp_path):
    changes = {"evaluation.records": 0, "pictures.every": 0, "steps": 1}
    assert run(tiny_uno(without_test_split, **changes), tmp_path / "run", console=quiet())


def test_a_missing_held_out_split_is_refused_before_parameters_are_loaded(without_test_split, tmp_path):
    config = tiny_uno(without_test_split, init_from=str(tmp_path / "nothing"), **{"pictures.every": 2})
    with pytest.raises(ConfigError) as error:
        run(config, tmp_path / "run", console=quiet())
    assert "config.evaluation.records and config.pictures.every need: set them to 0, or prepare" in str(error.value)
    assert "--test_fraction" in str(error.value)


def test_paths_of_a_config_are_local(dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(dataset.parent))
    config = with_local_paths(tiny_uno(dataset, **{"data.directory": f"~/{dataset.name}"}))
    assert config.data.directory == str(dataset)
    with pytest.raises(ConfigError, match=r"config\.init_from: 'gs://bucket/model' is a URL"):
        run(tiny_uno(dataset, init_from="gs://bucket/model"), tmp_path, console=quiet())


def test_a_run_that_skips_too_many_samples_stops_and_lists_them(dataset, tmp_path):
    console = Console(file=io.StringIO(), width=200)
    config = tiny_uno(dataset, **{"data.max_picture_pixels": 200, "evaluation.records": 0})
    problem = r"24 of the first 24 samples would be skipped \(100.0%\).*16 x 16 pixels are more than the maximum of 200"
    with pytest.raises(UserError, match=problem):
        run(config, tmp_path, console=console)
    listed = [json.loads(line) for line in (tmp_path / "skipped.jsonl").read_text().splitlines()]
    assert {entry["cause"] for entry in listed} == {"picture_size"}
    assert len({entry["id"] for entry in listed}) == len(listed) == 24
    assert "(100.0%) were skipped (picture_size 24)" in console.file.getvalue()


def test_frozen_parameters_must_not_be_random_unless_the_config_asks_for_it(dataset):
    config = tiny_uno(dataset, random_frozen=False)
    with pytest.raises(ConfigError) as error:
        start_params(config, make_mesh(config.mesh))
    assert "config.init_from is '', so these parameters would be random and stay so" in str(error.value)
    assert "decoder/embedding" in str(error.value)
    assert "config.random_frozen=True" in str(error.value)
    everything = tiny(openmoji_pretrain.get_config(), dataset, random_frozen=False)
    start_params(everything, make_mesh(everything.mesh))


def test_parts_that_a_start_lacks_must_not_be_random_and_frozen(dataset, unbroken):
    frozen = {"random_frozen": False, "model.num_metaqueries": 6}
    trained = tiny_uno(dataset, init_from=str(unbroken), **frozen)
    start_params(trained, make_mesh(trained.mesh))
    config = tiny_uno(dataset, init_from=str(unbroken), trainable=("latent_in",), **frozen)
    with pytest.raises(ConfigError, match="would be random and stay so.* metaqueries/"):
        start_params(config, make_mesh(config.mesh))


def test_the_head_of_the_align_loss_is_added_to_a_checkpoint_without_it_and_may_be_dropped(dataset, unbroken, tmp_path):
    aligned = {"model.align_layer": 1, "objective.align_weight": 0.5}
    assert run(tiny_uno(dataset, init_from=str(unbroken), steps=1, **aligned), tmp_path, console=quiet())
    base, trained = saved(unbroken, 6, "params"), saved(tmp_path, 1, "params")
    assert {name.split("'")[1] for name in trained.keys() - base.keys()} == {"align_head"}
    line = next(line for line in read_metrics(tmp_path / "metrics.jsonl") if line["step"] == 1 and "loss" in line)
    assert {"align", "weight/align", "gradient_norm/align", "constant/align"} <= line.keys()
    without = tiny_uno(dataset, init_from=str(tmp_path))
    assert "align_head" not in start_params(without, make_mesh(without.mesh)).params


@pytest.mark.slow
def test_an_anchored_run_resumes_with_its_own_start(dataset, unbroken, tmp_path):
    anchored = {"objective.anchor_weight": 0.5, "data.supervise": "hidden", "init_from": str(unbroken)}
    for steps in (2, 4):
        assert run(tiny_uno(dataset, steps=steps, **anchored), tmp_path / "resumed", console=quiet())
    assert run(tiny_uno(dataset, steps=4, **anchored), tmp_path / "unbroken", console=quiet())
    resumed, unbroken_run = (saved(tmp_path / name, 4, "params") for name in ("resumed", "unbroken"))
    for name, leaf in unbroken_run.items():
        np.testing.assert_array_equal(resumed[name], leaf, err_msg=name)
    start, kept = saved(unbroken, 6, "params"), saved(tmp_path / "resumed", 4, "anchor")
    for name, leaf in kept.items():
        np.testing.assert_array_equal(leaf, start[name], err_msg=name)
    held_out = [line for line in read_metrics(tmp_path / "unbroken/metrics.jsonl") if "held_out/anchor" in line]
    assert held_out[0]["held_out/anchor"] < 1e-10 < held_out[-1]["held_out/anchor"]


def test_an_anchor_cannot_begin_in_the_middle_of_a_run(dataset, unbroken):
    config = tiny_uno(dataset, steps=8, **{"objective.anchor_weight": 0.5})
    with pytest.raises(ConfigError, match=r"anchor_weight is 0\.5, but the run of .* did not keep .*init_from="):
        run(config, unbroken, accept_changes=True, console=quiet())
