"""The command `prepare_data encode --features`: vision features of a dataset's pictures, and runs that take them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.commands import output_of
from tests.helpers.tiny_run import quiet, tiny_uno, write_config
from uno_jax.config import ConfigError
from uno_jax.data.mixture import open_mixture
from uno_jax.data.workers import open_batches
from uno_jax.enrich import encode_command
from uno_jax.enrich.encode import encode
from uno_jax.interop.source import find_source
from uno_jax.models.unified import UnifiedModel
from uno_jax.parallel.mesh import host_mesh, replicated
from uno_jax.run.config import RunConfig, check_config, run_layout
from uno_jax.run.dataset import open_data
from uno_jax.run.encoded import check_features
from uno_jax.run.start import model_assets
from uno_jax.training.checkpoints import save_model
from uno_jax.training.initialise import init_params

pytestmark = pytest.mark.usefixtures("quick_compiles")


def params_of(model: Path) -> Any:
    mesh = host_mesh()
    return find_source(model).parameters(mesh, replicated(mesh), lambda path: jnp.dtype("float32")).params


@pytest.fixture(scope="module")
def model(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with random parameters."""
    directory, config = tmp_path_factory.mktemp("model") / "tiny", tiny_uno(dataset)
    save_model(directory, init_params(config.model, 0), {}, model_assets(config, dataset / "tokenizer"))
    return directory


def made(dataset: Path, model: Path, out: Path, **changes: Any) -> Path:
    encode(tiny_uno(dataset, **changes), str(model), out, quiet(), features=True, records_per_shard=10)
    return out


@pytest.fixture(scope="module")
def features(dataset: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features of all pictures for method `uno`, in shards of ten records."""
    return made(dataset, model, tmp_path_factory.mktemp("features") / "out")


def first_batch(config: RunConfig, model: Path) -> Any:
    mixture, tokenizer = open_mixture(config.data, "train"), find_source(model).tokenizer()
    batches = open_batches(mixture, config.data, run_layout(config), tokenizer)
    batch = next(batches).batch
    batches.close()
    return batch


def features_of(config: RunConfig, model: Path, batch: Any) -> tuple[Any, Any]:
    """Returns the features of context patches and of targets that the model computes from pixels."""
    batch = jax.tree.map(jnp.asarray, batch)
    return UnifiedModel(config.model).apply({"params": params_of(model)}, batch, method="vision_features")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("method", ["uno", "reca", pytest.param("pretrain", marks=pytest.mark.slow)])
def test_a_batch_with_features_is_that_of_pixels_up_to_rounding(method, dataset, model, features, tmp_path):
    changes = {"data.method": method}
    folder = features if method == "uno" else made(dataset, model, tmp_path / "out", **changes)
    config = tiny_uno(dataset, **changes)
    pixels, taken = (
        first_batch(config, model),
        first_batch(tiny_uno(dataset, **changes, **{"data.features": str(folder)}), model),
    )
    vit, targets = features_of(config, model, pixels)
    assert np.any(pixels.vit_image)
    assert np.any(pixels.target_image) == (method == "uno")
    real = pixels.vit_image > 0, pixels.target_image > 0
    np.testing.assert_allclose(np.asarray(vit)[real[0]], taken.vit_patches[real[0]], atol=1e-5)
    np.testing.assert_allclose(np.asarray(targets)[real[1]], taken.target_patches[real[1]], atol=1e-5)
    for name, value in pixels.shared().items():
        if name not in ("vit_patches", "target_patches"):
            jax.tree.map(np.testing.assert_array_equal, value, getattr(taken, name))


def test_features_of_a_bfloat16_model_are_bfloat16(dataset, model, tmp_path):
    changes = {"model.compute_dtype": "bfloat16", "frozen_dtype": "bfloat16"}
    folder = made(dataset, model, tmp_path / "out", **changes)
    batch = first_batch(tiny_uno(dataset, **changes, **{"data.features": str(folder)}), model)
    assert batch.vit_patches.dtype == batch.target_patches.dtype == jnp.bfloat16
    assert np.any(batch.target_patches.astype(np.float32))


def test_all_datasets_of_a_mixture_have_features_or_none(dataset, model, features):
    def config(**second):
        parts = {name: {"directory": str(dataset), "features": str(features)} for name in ("first", "second")}
        parts["second"] |= {"task_weights": {"editing": 1.0}, **second}
        return tiny_uno("", **{"data.mixture": parts, "data.directory": ""})

    assert np.any(first_batch(config(), model).target_patches)
    with pytest.raises(ConfigError, match="vision features .features. for some of its datasets: name them for all"):
        run_layout(config(features=""))
    with pytest.raises(ConfigError, match=r"mixture\.second\.features: .* was made with targets False, .* has True"):
        open_data(config(method="reca"))


def test_a_run_with_another_encoder_transform_dtype_or_method_is_refused(dataset, model, features):
    def config(**changes):
        return tiny_uno(dataset, **{"data.features": str(features)}, **changes)

    own = params_of(model)["vision"]
    check_features(config(), own)
    check_features(config(**{"data.method": "sft"}), own)  # needs less
    with pytest.raises(ConfigError, match="made with vision .* or start from the checkpoint that it was made with"):
        check_features(config(), jax.tree.map(lambda leaf: leaf + 1, own))
    for changes, message in (
        ({"data.vit_transform.min_side": 8}, "vit_transform .*'min_side': 16.* this run has .*'min_side': 8"),
        ({"data.metaquery_transform.min_side": 8}, "metaquery_transform .*'min_side': 16"),
        ({"model.compute_dtype": "bfloat16"}, "made with compute_dtype float32, and this run has bfloat16"),
        ({"frozen_dtype": "bfloat16"}, "made with frozen_dtype float32, and this run has bfloat16"),
        ({"model.vision.hidden_size": 16}, "made with vision_fields .* use the model that it was made with"),
        ({"data.method": "reca"}, "made with targets False"),
    ):
        with pytest.raises(ConfigError, match=message):
            open_data(config(**changes))


@pytest.mark.parametrize("trainable", ["", "vision", "vision/layers"])
def test_a_run_that_trains_the_vision_encoder_does_not_take_features(trainable, dataset, features):
    config = tiny_uno(dataset, **{"data.features": str(features), "trainable": (trainable,)})
    with pytest.raises(ConfigError, match="features of a frozen vision encoder, but config.trainable trains it"):
        check_config(config)


def test_shards_that_are_missing_are_made_again_with_the_same_bytes(dataset, model, features, tmp_path):
    shutil.copytree(features, tmp_path / "out")
    (tmp_path / "out" / "features-train.array_record-00001-of-00003").unlink()
    with pytest.raises(ConfigError, match="1 of 3 shards of split 'train' are missing. Run the command"):
        open_data(tiny_uno(dataset, **{"data.features": str(tmp_path / "out")}))
    made(dataset, model, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(features)


def test_an_edit_has_features_of_its_metaqueries_and_of_its_source(dataset, features):
    records = open_mixture(tiny_uno(dataset, **{"data.features": str(features)}).data, "train")
    edit = next(records[number] for number in range(24) if records[number].task == "editing")
    assert {use: found.shape for use, found in edit.features.items()} == {
        ("metaqueries", 0): (2, 2, 8),
        ("vit", 1): (2, 2, 8),
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"data.metaquery_transform.stride": 7},
            "data.metaquery_transform.stride is 7, expected a multiple of the patch",
        ),
        ({"data.vit_transform.max_side": 24}, "model.vision.table_side is 2: lower max_side to 16"),
        ({"data.method": "une"}, "data.method is 'une', expected one of uno, "),
    ],
)
def test_pictures_that_the_encoder_cannot_take_are_refused_before_anything_is_made(
    changes, message, dataset, model, features, tmp_path
):
    with pytest.raises(ConfigError, match=message):
        made(dataset, model, tmp_path / "out", **changes)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match="data.method is 'une'"):
        open_data(tiny_uno(dataset, **{"data.features": str(features), "data.method": "une"}))


def test_the_command_says_how_to_use_the_features(dataset, model, features, tmp_path):
    write_config(tmp_path / "config.py", dataset, {})
    given = [f"--config={tmp_path / 'config.py'}", f"--out={features}", "--records_per_shard=10", "--features"]
    printed = output_of(encode_command.main, [*given, f"--checkpoint={model}"])
    assert f"--config.data.features={features}" in printed
