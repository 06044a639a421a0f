"""Whole runs of a tiny model: resuming, starting points, what stops them, and what they leave behind."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import rich.console
from absl import flags
from flax.traverse_util import flatten_dict
from PIL import Image

from configs import openmoji_pretrain, openmoji_uno
from tests.helpers.paths import ROOT
from uno_jax.config import ConfigError, from_config_dict, to_json
from uno_jax.data.record import Record
from uno_jax.data.records import write_records
from uno_jax.data.tokenizer import Tokenizer, train_tokenizer
from uno_jax.interop.load import load_model
from uno_jax.parallel.mesh import make_mesh
from uno_jax.run.config import RunConfig, check_config
from uno_jax.run.run import RunContext, held_out_batches, held_out_data, run
from uno_jax.run.start import start_params
from uno_jax.training.checkpoints import find_checkpoint, read_asset, restore_tree
from uno_jax.training.initialise import abstract_params
from uno_jax.training.metrics import read_metrics
from uno_jax.training.state import ADAPTERS_TRAINABLE

COLOURS = {"red": (255, 0, 0), "green": (0, 200, 0), "blue": (0, 0, 255)}


def picture(colour: tuple[int, int, int], corner: int) -> bytes:
    pixels = np.full((16, 16, 3), 255, np.uint8)
    pixels[corner : corner + 8, corner : corner + 8] = colour
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def records(split: str) -> list[Record]:
    made = []
    for i in range(24):
        name = list(COLOURS)[i % 3]
        image = picture(COLOURS[name], i % 8)
        if i % 4 == 0:
            sources = (picture((0, 0, 0), i % 8),)
            made.append(Record(f"{split}_{i}", "editing", image, f"make it {name}", (f"a {name} square",), sources))
        else:
            captions = (f"a square painted {name}", f"{name} box")
            made.append(Record(f"{split}_{i}", "text_to_image", image, f"{name} square", captions))
    return made


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # grain reads them
    directory = tmp_path_factory.mktemp("data") / "squares"
    splits = {split: lambda split=split: records(split) for split in ("train", "test")}
    write_records(directory, "squares", splits, description="squares", license_text="none")
    train_tokenizer([text for r in records("train") for text in (r.prompt, *r.captions)], 300, directory / "tokenizer")
    return directory


@pytest.fixture(scope="module", autouse=True)
def compiled_once(tmp_path_factory):
    """The runs here compile the same programs again and again."""
    before = jax.config.values
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("compiled")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    yield
    for name in ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs"):
        jax.config.update(name, before[name])


def tiny(config: Any, dataset: Path, **changes: Any) -> RunConfig:
    """A real config, shrunk; `changes` by dotted name."""
    config.unlock()
    config.model.decoder.update(
        hidden_size=16, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=8, mlp_size=16, vocab_size=300
    )
    config.model.vision.update(hidden_size=8, num_layers=1, num_heads=2, mlp_size=8, table_side=2)
    config.model.max_latent_size = 2
    if config.model.num_metaqueries:
        config.model.num_metaqueries = 4
    config.data.directory = str(dataset)
    config.data.task_weights = {}  # as in the data
    config.data.update(rows=2, virtual_shards=2, text_tokens=32, vit_tokens=8, latent_tokens=12, packing_bins=2)
    config.data.update({name: 16 for name in ("caption_tokens", "query_tokens") if config.data[name]})
    for transform in (config.data.vae_transform, config.data.vit_transform, config.data.metaquery_transform):
        transform.update(max_side=16, min_side=16, stride=8)
    config.optimizer.update(schedule="constant", warmup_steps=0, ema_decay=0.9)
    config.objective.balance.every = 2
    config.checkpoint.update(every=2, keep=10)
    config.evaluation.update(every=0, batches=1)
    config.pictures.update(every=0, timesteps=3, caption_tokens=6)
    config.update(steps=6, log_every=1, tensorboard=False, init_from="")
    config.update_from_flattened_dict(changes)
    return from_config_dict(config, RunConfig)


def tiny_uno(dataset: Path, **changes: Any) -> RunConfig:
    return tiny(openmoji_uno.get_config(), dataset, **changes)


def quiet() -> rich.console.Console:
    return rich.console.Console(file=io.StringIO(), width=120)


def saved(workdir: Path, step: int, item: str) -> dict[str, np.ndarray]:
    """All arrays of one item of a checkpoint, by name."""
    import orbax.checkpoint as ocp

    tree = ocp.PyTreeCheckpointHandler().restore(workdir / "checkpoints" / str(step) / item)
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def assert_same_run(first: Path, second: Path, step: int) -> None:
    for item in ("params", "training", "ema"):
        a, b = saved(first, step, item), saved(second, step, item)
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name], err_msg=f"{item} {name}")
    speeds = ("tokens_per_second", "images_per_second", "seconds_per_step")

    def lines(workdir: Path) -> list[dict]:
        read = read_metrics(workdir / "metrics.jsonl")
        return [{name: value for name, value in line.items() if name not in speeds} for line in read]

    assert lines(first) == lines(second)


@pytest.fixture(scope="module")
def unbroken(dataset, tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("unbroken")
    assert run(tiny_uno(dataset), workdir, console=quiet())
    return workdir


def stop_at(step: int) -> Any:
    """Pictures that draw nothing, and tell the process to end at a step."""

    def make(context: Any) -> Any:
        return lambda at, params: os.kill(os.getpid(), signal.SIGTERM) if at == step else None

    return make


def test_a_stopped_and_resumed_run_equals_an_unbroken_one_bit_for_bit(dataset, unbroken, tmp_path):
    config = tiny_uno(dataset, **{"pictures.every": 3})
    assert not run(config, tmp_path, make_generate_pictures=stop_at(3), console=quiet())
    assert find_checkpoint(tmp_path).name == "3"
    assert run(tiny_uno(dataset), tmp_path, console=quiet())
    assert_same_run(tmp_path, unbroken, 6)


PROGRAM = """
import json, pathlib, sys
from absl import flags
from flax.traverse_util import flatten_dict
from uno_jax.config import from_config_dict
from uno_jax.run.run import run
from uno_jax.run.config import RunConfig
flags.FLAGS.mark_as_parsed()
run(from_config_dict(json.loads(pathlib.Path(sys.argv[1]).read_text()), RunConfig), sys.argv[2])
"""


def start_process(config: RunConfig, workdir: Path, **environment: str) -> subprocess.Popen:
    """A run in a process of its own."""
    file = workdir.parent / "config.json"
    file.write_text(json.dumps(to_json(config)))
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(file), str(workdir)],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"} | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def finish(process: subprocess.Popen) -> None:
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()


@pytest.mark.slow
def test_a_killed_and_resumed_run_equals_an_unbroken_one_bit_for_bit(dataset, unbroken, tmp_path):
    workdir = tmp_path / "run"
    for wanted in (2, 4):
        process = start_process(tiny_uno(dataset), workdir)
        while process.poll() is None and not (workdir / "checkpoints" / str(wanted)).is_dir():
            time.sleep(0.01)
        process.kill()
        process.communicate()
        assert find_checkpoint(workdir) is not None
    finish(start_process(tiny_uno(dataset), workdir))
    assert_same_run(workdir, unbroken, 6)


@pytest.mark.slow
def test_a_run_on_eight_devices_goes_on_on_one_and_gives_the_same(dataset, tmp_path):
    eight_rows = {"data.rows": 8, "data.virtual_shards": 8, "optimizer.learning_rate": 1e-4}
    for name, devices in (("eight", 8), ("one", 1)):
        config = tiny_uno(dataset, **eight_rows, steps=2)
        xla_flags = f"--xla_force_host_platform_device_count={devices}"
        finish(start_process(config, tmp_path / name, XLA_FLAGS=xla_flags))
        assert run(tiny_uno(dataset, **eight_rows, steps=4), tmp_path / name, console=quiet())
    eight, one = (saved(tmp_path / name, 4, "params") for name in ("eight", "one"))
    for name in one:
        np.testing.assert_allclose(eight[name], one[name], atol=2e-5, err_msg=name)


def test_frozen_parameters_stay_as_they_were_and_trainable_ones_move(dataset, unbroken):
    config = tiny_uno(dataset)
    start = start_params(config, make_mesh(config.mesh)).params
    before = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(start)}
    after = saved(unbroken, 6, "params")
    moved = {name for name in after if not np.array_equal(before[name], after[name])}
    assert all("understanding" not in name and "vision" not in name and "embedding" not in name for name in moved)
    assert any("generation" in name for name in moved)
    assert any("metaqueries" in name for name in moved)


def test_a_complete_run_says_so_and_changes_nothing(dataset, unbroken):
    console = quiet()
    before = (unbroken / "metrics.jsonl").read_bytes()
    assert run(tiny_uno(dataset), unbroken, console=console)
    assert "complete" in console.file.getvalue()
    assert "Held-out losses" in console.file.getvalue()
    assert (unbroken / "metrics.jsonl").read_bytes() == before


def test_a_run_tells_what_it_runs_and_what_was_learned(dataset, tmp_path):
    console = quiet()
    run(tiny_uno(dataset, steps=2), tmp_path, console=console)
    text = console.file.getvalue()
    for expected in (
        "generation expert",
        "caption tokens a step",
        "24 train, 24 test",
        str(tmp_path)[:20],
        "step 2/2  flow ",
        "caption, prompt dropped",
        "always the same answer",
    ):
        assert expected in text


def test_metrics_hold_losses_their_splits_gradient_norms_and_constant_predictors(unbroken):
    lines = read_metrics(unbroken / "metrics.jsonl")
    train = [line for line in lines if "loss" in line]
    assert [line["step"] for line in train] == [1, 2, 3, 4, 5, 6]
    together = {name for line in train for name in line}
    for name in (
        "flow",
        "caption",
        "visual",
        "flow/text_to_image",
        "learning_rate",
        "padding/caption",
        "constant/visual",
    ):
        assert name in together
    assert any(name.startswith("flow/t0.") for name in together)
    probed = [line["step"] for line in train if "gradient_norm/caption" in line]
    assert probed == [1, 3, 5]
    assert {"gradient_cosine/flow_caption", "gradient_cosine/flow_visual"} <= together
    held_out = [line for line in lines if "held_out/flow" in line]
    assert [line["step"] for line in held_out] == [0, 6]
    for name in ("caption", "visual", "prompt_dropped/caption", "constant/caption", "constant/visual"):
        assert f"held_out/{name}" in held_out[0]


def test_held_out_batches_are_kept_encoded(dataset, tmp_path):
    # More batches than an epoch of 24 records has; that of the training does not end these.
    config = tiny_uno(dataset, **{"evaluation.batches": 25, "data.epochs": 1})
    tokenizer = Tokenizer.from_directory(dataset / "tokenizer")
    context = RunContext(config, tokenizer, make_mesh(config.mesh), {}, tmp_path)
    batches = held_out_batches(context, held_out_data(config, prompts=True))
    assert [type(batch.latent_moments) for batch in batches] == [np.ndarray] * 25
    assert all(batch.latent_moments.dtype == np.float32 for batch in batches)
    assert all(np.any(batch.latent_moments) for batch in batches)


def test_a_checkpoint_holds_config_model_and_tokenizer(dataset, unbroken):
    checkpoint = find_checkpoint(unbroken)
    config = from_config_dict(json.loads(read_asset(checkpoint, "config.json")), RunConfig)
    assert config == tiny_uno(dataset)
    assert json.loads(read_asset(checkpoint, "model.json")) == to_json(config.model)
    assert read_asset(checkpoint, "vocab.json") == (dataset / "tokenizer" / "vocab.json").read_bytes()


def test_the_model_of_a_run_is_loaded_with_its_parameters_or_their_averages(dataset, unbroken):
    params, averages = saved(unbroken, 6, "params"), saved(unbroken, 6, "ema")
    for ema in (False, True):
        model = load_model(unbroken, ema=ema)
        for path, leaf in jax.tree_util.tree_leaves_with_path(model.params):
            name = jax.tree_util.keystr(path)
            np.testing.assert_array_equal(leaf, averages[name] if ema and name in averages else params[name])
    assert model.config == tiny_uno(dataset).model
    assert model.vae_transform == tiny_uno(dataset).data.vae_transform


def test_uno_starts_from_a_pretrain_run(dataset, tmp_path):
    pretrain = tiny(openmoji_pretrain.get_config(), dataset, steps=2)
    run(pretrain, tmp_path / "pretrain", console=quiet())
    config = tiny_uno(dataset, init_from=str(tmp_path / "pretrain"))
    start = start_params(config, make_mesh(config.mesh)).params
    trained = restore_tree(find_checkpoint(tmp_path / "pretrain") / "params", abstract_params(pretrain.model))
    jax.tree.map(np.testing.assert_array_equal, {k: v for k, v in start.items() if k != "metaqueries"}, trained)
    assert start["metaqueries"]["table"].shape == (4, 16)


def test_a_start_of_another_model_is_refused_with_the_fields(dataset, unbroken):
    config = tiny_uno(
        dataset, init_from=str(unbroken), **{"model.decoder.mlp_size": 24, "model.prediction": "velocity"}
    )
    with pytest.raises(ConfigError) as error:
        start_params(config, make_mesh(config.mesh))
    assert "config.model.decoder.mlp_size is 24, there it is 16" in str(error.value)
    assert "config.model.prediction is 'velocity', there it is 'x0'" in str(error.value)


def test_adapters_are_drawn_over_a_checkpoint_without_them_and_never_left_out(dataset, unbroken, tmp_path):
    adapters = {"model.decoder.adapter_rank": 2, "trainable": ADAPTERS_TRAINABLE}
    assert run(tiny_uno(dataset, init_from=str(unbroken), steps=1, **adapters), tmp_path, console=quiet())
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
    with pytest.raises(ConfigError, match="adapter_rank is 0, there it is 2"):
        start_params(without, make_mesh(without.mesh))


@pytest.mark.parametrize("place", ["", "7", "checkpoints", "checkpoints/7"])
def test_a_workdir_that_is_or_holds_a_model_alone_is_refused(dataset, unbroken, tmp_path, place):
    shutil.copytree(find_checkpoint(unbroken), tmp_path / "mine" / place)
    shutil.rmtree(tmp_path / "mine" / place / "training")
    with pytest.raises(ConfigError, match=f"the workdir is .*mine, but .*/mine/?{place} is no checkpoint that its"):
        run(tiny_uno(dataset), tmp_path / "mine", console=quiet())


@pytest.mark.parametrize("place", ["checkpoints", "checkpoints/6"])
def test_a_folder_of_a_run_is_no_workdir(dataset, unbroken, place):
    with pytest.raises(ConfigError, match="give a run's own workdir"):
        run(tiny_uno(dataset), unbroken / place, console=quiet())
    assert not (unbroken / place / "checkpoints").exists()


def test_a_data_position_of_other_shards_is_refused(dataset, unbroken, tmp_path):
    shutil.copytree(unbroken, tmp_path, dirs_exist_ok=True)
    with pytest.raises(ConfigError, match=r"data\.virtual_shards must be as it was"):
        run(tiny_uno(dataset, **{"data.virtual_shards": 1, "steps": 8}), tmp_path, console=quiet())


def test_a_start_that_is_not_there_is_refused(dataset, tmp_path):
    config = tiny_uno(dataset, init_from=str(tmp_path / "nothing"))
    with pytest.raises(ConfigError, match="config.init_from: .*nothing: no checkpoint is there"):
        start_params(config, make_mesh(config.mesh))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"model.decoder.num_heads": 3, "model.decoder.num_kv_heads": 2},
            "num_heads is 3, no multiple of num_kv_heads",
        ),
        ({"model.num_metaqueries": 0}, "query_tokens is 16, but config.model.num_metaqueries is 0"),
        ({"optimizer.accumulation": 3}, r"config\.data\.rows is 2, which config\.optimizer\.accumulation \(3\)"),
        ({"optimizer.warmup_steps": 7}, "warmup_steps is 7, more than the 6 steps"),
        ({"model.compute_dtype": "float16"}, "compute_dtype is 'float16': expected float32 or bfloat16"),
        (
            {"objective.balance.caption": 0.5, "objective.balance.every": 0},
            r"config\.objective\.balance\.every is 0, .* never measured: give at least 1",
        ),
        ({"objective.time_shift": 0.0}, r"config\.objective\.time_shift is 0\.0: give a positive number"),
        ({"evaluation.batches": -1}, r"config\.evaluation\.batches is -1: give at least 0"),
        ({"model.decoder.num_layers": 0}, r"config\.model\.decoder\.num_layers is 0: give at least 1"),
        ({"model.decoder.head_dim": 0}, r"config\.model\.decoder\.head_dim is 0: give at least 2"),
        ({"optimizer.ema_decay": 99.9}, r"config\.optimizer\.ema_decay is 99\.9: give a number from 0 to below 1"),
        ({"optimizer.learning_rate": float("nan")}, r"config\.optimizer\.learning_rate is nan: give at least 0"),
        (
            {"optimizer.clip_norm": float("inf")},
            r"config\.optimizer\.clip_norm is inf: give at least 0, and finite",
        ),
    ],
)
def test_sizes_that_do_not_go_together_are_refused(dataset, changes, expected):
    with pytest.raises(ConfigError, match=expected):
        check_config(tiny_uno(dataset, **changes))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model.max_latent_size": 1}, "model.max_latent_size is 1"),
        ({"data.latent_tokens": 3}, "data.latent_tokens is 3"),
        ({"model.num_metaqueries": 3}, "model.num_metaqueries is 3"),
        ({"model.decoder.vocab_size": 270}, r"the model's vocabulary is 270 \(model\.decoder\.vocab_size\)"),
        ({"mesh.data": 2}, "config.mesh.data .2. does not divide the number of devices"),
    ],
)
def test_a_run_refuses_what_could_only_fail_later(dataset, tmp_path, changes, expected):
    with pytest.raises(ConfigError, match=expected):
        run(tiny_uno(dataset, **changes), tmp_path, console=quiet())


def poisoned(dataset: Path, **changes: Any) -> RunConfig:
    """A config whose losses are infinite from the first step on."""
    nothing_else = {"evaluation.batches": 0, "objective.balance.every": 0}
    return tiny_uno(dataset, **{"objective.flow_weight": float("inf"), **nothing_else, **changes})


def test_a_non_finite_loss_stops_the_run_with_step_losses_and_samples(dataset, tmp_path):
    with pytest.raises(FloatingPointError) as error:
        run(poisoned(dataset), tmp_path, console=quiet())
    assert str(error.value).startswith("step 1: a non-finite loss or gradient")
    assert "row 0: train_" in str(error.value)
    assert find_checkpoint(tmp_path).name == "0"


def test_after_a_non_finite_stop_the_same_batch_comes_again(dataset, unbroken, tmp_path):
    with pytest.raises(FloatingPointError):
        run(poisoned(dataset), tmp_path, console=quiet())
    healed = dataclasses.replace(tiny_uno(dataset), evaluation=poisoned(dataset).evaluation)
    assert run(healed, tmp_path, console=quiet())
    for name, leaf in saved(unbroken, 6, "params").items():
        np.testing.assert_array_equal(leaf, saved(tmp_path, 6, "params")[name], err_msg=name)


def test_non_finite_batches_are_skipped_and_counted_where_the_config_says_so(dataset, tmp_path):
    assert run(poisoned(dataset, **{"optimizer.nonfinite": "skip", "steps": 2}), tmp_path, console=quiet())
    assert read_metrics(tmp_path / "metrics.jsonl")[-1]["skipped"] == 2
    fresh = start_params(tiny_uno(dataset), make_mesh(tiny_uno(dataset).mesh)).params
    kept = saved(tmp_path, 2, "params")
    for path, leaf in jax.tree_util.tree_leaves_with_path(fresh):
        np.testing.assert_array_equal(kept[jax.tree_util.keystr(path)], leaf)


@pytest.mark.slow
def test_averages_in_host_memory_are_those_in_device_memory_after_a_restart_too(dataset, unbroken, tmp_path):
    for steps in (4, 6):
        run(tiny_uno(dataset, **{"optimizer.ema_memory": "host", "steps": steps}), tmp_path, console=quiet())
    averages, expected = saved(tmp_path, 6, "ema"), saved(unbroken, 6, "ema")
    assert averages.keys() == expected.keys()
    for name in averages:
        np.testing.assert_allclose(averages[name], expected[name], rtol=1e-6, atol=1e-7, err_msg=name)
