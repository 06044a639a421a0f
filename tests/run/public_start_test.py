"""A small run like those of the 7B configs, started from a directory in the public layout and resumed."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import rich.console
from absl import flags
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.numpy import load_file

from configs import bagel_7b_uno
from tests.helpers.made_up_records import make_records
from tests.helpers.paths import TESTDATA
from tests.helpers.public_model import load_public
from uno_jax import convert
from uno_jax.config import ConfigError, from_config_dict, to_json
from uno_jax.data.records import write_records
from uno_jax.data.tokenizer_files import TOKENIZER_FILES
from uno_jax.interop.names import TensorName, model_tensors
from uno_jax.interop.sizes import model_config_from_directory
from uno_jax.models.config import ModelConfig
from uno_jax.run.config import RunConfig
from uno_jax.run.run import run
from uno_jax.run.start import run_source, tokenizer_directory
from uno_jax.training.checkpoint_folders import find_checkpoint, read_asset
from uno_jax.training.metrics import read_metrics
from uno_jax.training.state import UNO_TRAINABLE, is_under
from uno_jax.training.stored_trees import restore_tree

PUBLIC = TESTDATA / "bagel_tiny_a"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    """A dataset without a tokenizer, so that runs use the public directory's."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # grain reads them
    directory = tmp_path_factory.mktemp("data") / "things"
    records = make_records(8, ("text_to_image", "editing"))
    splits = {"train": lambda: records, "test": lambda: records[:4]}
    write_records(directory, "things", splits, description="made up", license_text="none")
    return directory


def tiny_7b(dataset: Path, **changes: Any) -> RunConfig:
    """Returns `bagel_7b_uno` with small sizes. Pictures have 32 pixels, 2 x 2 latents and 2 x 2 patches."""
    config = bagel_7b_uno.get_config()
    config.data.update(directory=str(dataset), rows=2, virtual_shards=2, prefetch=0)
    config.data.update(text_tokens=48, vit_tokens=4, caption_tokens=24, query_tokens=8, latent_tokens=12)
    config.data.vae_transform.update(max_side=32, min_side=32)
    config.data.vit_transform.update(max_side=28, min_side=28)
    config.data.metaquery_transform.update(max_side=28, min_side=28)
    config.optimizer.update(learning_rate=1e-3, warmup_steps=0)
    config.evaluation.records = 6
    # float32, to compare frozen parameters with the file's.
    config.update(steps=2, log_every=1, tensorboard=False, init_from=str(PUBLIC), frozen_dtype="float32")
    config.update_from_flattened_dict(changes)
    sizes = model_config_from_directory(PUBLIC)
    shrunk = from_config_dict(config, RunConfig)
    return dataclasses.replace(
        shrunk, model=dataclasses.replace(sizes, num_metaqueries=4, compute_dtype=shrunk.model.compute_dtype)
    )


def leaves(tree: Any) -> dict[str, np.ndarray]:
    paths, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {"/".join(key.key for key in path): np.asarray(leaf) for path, leaf in paths}


def saved(workdir: Path) -> dict[str, np.ndarray]:
    """Returns all parameters of a run's newest checkpoint."""
    import orbax.checkpoint as ocp

    return leaves(ocp.PyTreeCheckpointHandler().restore(find_checkpoint(workdir) / "params"))


@pytest.fixture(scope="module")
def finished(dataset, tmp_path_factory) -> tuple[Path, str]:
    """Workdir of a run of two steps, stopped and resumed between them, and its output."""
    workdir = tmp_path_factory.mktemp("run")
    console = rich.console.Console(file=io.StringIO(), width=200)
    for steps in (1, 2):
        assert run(tiny_7b(dataset, steps=steps), workdir, console=console)
    return workdir, console.file.getvalue()


def test_frozen_parameters_are_the_files_bit_for_bit_and_the_others_move(finished):
    public, after = load_public(PUBLIC), saved(finished[0])
    for name, leaf in leaves(public.params).items():
        if any(is_under(name, prefix) for prefix in UNO_TRAINABLE):
            assert not np.array_equal(after[name], leaf), name
        else:
            np.testing.assert_array_equal(after[name], leaf, err_msg=name)
    assert {name for name in after if name not in leaves(public.params)} == {
        name for name in after if name.startswith("metaqueries/")
    }


def test_the_autoencoder_is_the_files_and_every_checkpoint_holds_it(finished):
    autoencoder = load_public(PUBLIC).autoencoder_params
    restored = restore_tree(find_checkpoint(finished[0]) / "autoencoder", autoencoder)
    jax.tree.map(np.testing.assert_array_equal, restored, autoencoder)


def test_an_export_of_the_run_holds_the_directorys_frozen_tensors_byte_by_byte(finished, tmp_path):
    convert.main(["export", str(finished[0]), str(tmp_path / "out")], rich.console.Console(file=io.StringIO()))
    for file in ("ema.safetensors", "ae.safetensors"):
        stored, exported = load_file(PUBLIC / file), load_file(tmp_path / "out" / file)
        trained = {entry.public for entry in model_tensors(model_config_from_directory(PUBLIC)) if is_trained(entry)}
        assert stored.keys() == exported.keys()
        for name, tensor in stored.items():
            assert (exported[name].tobytes() == tensor.tobytes()) == (name not in trained), name


def is_trained(entry: TensorName) -> bool:
    return any(is_under("/".join(entry.path), prefix) for prefix in UNO_TRAINABLE)


def test_the_tokenizer_is_the_directorys_and_a_resumed_run_needs_only_its_checkpoint(dataset, finished):
    workdir, printed = finished
    checkpoint = find_checkpoint(workdir)
    for name in TOKENIZER_FILES:
        assert read_asset(checkpoint, name) == (PUBLIC / name).read_bytes()
    assert str(PUBLIC) in printed
    config = tiny_7b(dataset, init_from="removed")
    assert tokenizer_directory(config, run_source(config, checkpoint)) == checkpoint / "assets"


def test_a_tokenizer_in_the_config_overrides_the_others(dataset):
    config = tiny_7b(dataset, **{"data.tokenizer": "mine"})
    assert tokenizer_directory(config, run_source(config)) == Path("mine")


def test_randomly_initialised_parameters_use_the_tokenizer_of_the_dataset(dataset):
    config = tiny_7b(dataset, init_from="")
    assert tokenizer_directory(config, run_source(config)) == dataset / "tokenizer"


def test_a_missing_start_is_reported_before_its_tokenizer(dataset):
    with pytest.raises(ConfigError, match=r"config\.init_from: nowhere: no checkpoint found"):
        run_source(tiny_7b(dataset, init_from="nowhere"))


def test_the_resumed_run_logs_every_loss_of_every_step(finished):
    lines = read_metrics(finished[0] / "metrics.jsonl")
    assert [line["step"] for line in lines if "loss" in line] == [1, 2]
    for line in lines:
        assert all(np.isfinite(value) for value in line.values() if isinstance(value, float))
    assert {"flow", "caption", "visual"} <= set().union(*lines)


def test_sizes_that_differ_from_the_directorys_are_rejected_with_both(dataset, tmp_path):
    config = tiny_7b(dataset)
    other = dataclasses.replace(
        config.model, decoder=dataclasses.replace(config.model.decoder, mlp_size=96), max_latent_size=4
    )
    with pytest.raises(ConfigError) as error:
        run(dataclasses.replace(config, model=other), tmp_path)
    assert "config.model.decoder.mlp_size is 96, in the checkpoint 128" in str(error.value)
    assert "config.model.max_latent_size is 4, in the checkpoint 8" in str(error.value)


def with_model(config: RunConfig, changes: dict[str, Any]) -> RunConfig:
    """Returns the config with changed model fields, given by dotted path."""
    flat = flatten_dict(to_json(config.model), sep=".")
    model = from_config_dict(unflatten_dict(flat | changes, sep="."), ModelConfig)
    return dataclasses.replace(config, model=model)


@pytest.mark.parametrize(
    ("field", "value", "before"),
    [
        ("decoder.rope_theta", 10.0, 1e6),
        ("vision.num_heads", 2, 4),
        ("prediction", "x0", "velocity"),
        ("num_metaqueries", 6, 4),
        ("decoder.adapter_rank", 2, 0),
    ],
)
def test_a_run_does_not_resume_with_another_model_even_if_its_shapes_are_the_same(
    dataset, finished, field, value, before
):
    with pytest.raises(ConfigError) as error:
        run(with_model(tiny_7b(dataset, steps=3), {field: value}), finished[0])
    assert "checkpoints/2: the model differs from the config's. Use the checkpoint's model" in str(error.value)
    assert f"config.model.{field} is {value!r}, in the checkpoint {before!r}" in str(error.value)


def test_a_resumed_run_says_that_its_ema_starts_there(dataset, finished):
    console = rich.console.Console(file=io.StringIO(), width=300)
    assert run(tiny_7b(dataset, **{"optimizer.ema_decay": 0.9}), finished[0], console=console)
    assert "checkpoints/2 (it has no EMA weights: the EMA starts from the parameters)" in console.file.getvalue()


def test_a_run_resumes_with_other_settings_of_speed_and_precision(dataset, finished):
    config = with_model(tiny_7b(dataset), {"decoder.remat": "full", "compute_dtype": "float32"})
    assert run(config, finished[0], console=rich.console.Console(file=io.StringIO()))
