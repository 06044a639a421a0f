"""The command `prepare_data encode`: moments of a dataset's pictures, and runs that take them in place of pixels."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from tests.helpers.commands import error_of, output_of
from tests.helpers.tiny_autoencoder import AUTOENCODER, encoding_uno, write_autoencoder
from tests.helpers.tiny_run import quiet, write_config
from uno_jax.config import ConfigError
from uno_jax.data.annex import AnnexError
from uno_jax.data.mixture import open_mixture
from uno_jax.data.record import EncodedRecord
from uno_jax.data.workers import open_batches
from uno_jax.enrich import encode_command
from uno_jax.enrich.encode import encode
from uno_jax.interop.source import find_source
from uno_jax.models.autoencoder import make_autoencoder
from uno_jax.models.autoencoder_batch import encode_batch
from uno_jax.parallel.mesh import host_mesh, replicated
from uno_jax.run.config import RunConfig, run_layout
from uno_jax.run.encoded import check_encoded

pytestmark = pytest.mark.usefixtures("quick_compiles")


@pytest.fixture(scope="module")
def model(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_autoencoder(encoding_uno(dataset), tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def moments(dataset: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Moments of all pictures, in shards of ten records."""
    out = tmp_path_factory.mktemp("moments") / "out"
    encode(encoding_uno(dataset), str(model), out, quiet(), records_per_shard=10)
    return out


def autoencoder_of(model: Path) -> Any:
    return find_source(model).autoencoder_params(replicated(host_mesh()))


def batches_of(config: RunConfig, model: Path, count: int = 3) -> list[Any]:
    """Returns the first batches of a run, encoded."""
    batches = open_batches(
        open_mixture(config.data, "train"), config.data, run_layout(config), find_source(model).tokenizer()
    )
    autoencoder, params = make_autoencoder(config.model.autoencoder), autoencoder_of(model)
    found = [encode_batch(autoencoder, params, next(batches).batch, config.model) for _ in range(count)]
    batches.close()
    return [jax.device_get(batch) for batch in found]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_run_with_moments_has_the_batches_of_one_with_pixels_up_to_rounding(dataset, model, moments):
    of_pixels = batches_of(encoding_uno(dataset), model)
    of_moments = batches_of(encoding_uno(dataset, **{"data.encoded": str(moments)}), model)
    for a, b in zip(of_pixels, of_moments, strict=True):
        assert np.any(a.latent_moments)
        np.testing.assert_allclose(a.latent_moments, b.latent_moments, atol=1e-5)
        jax.tree.map(np.testing.assert_array_equal, a.shared(), b.shared())


def test_records_with_moments_can_be_sent_to_another_process(dataset, moments):
    mixture = open_mixture(encoding_uno(dataset, **{"data.encoded": str(moments)}).data, "train")
    first, sent = mixture[1], pickle.loads(pickle.dumps(mixture))[1]
    assert isinstance(first, EncodedRecord)
    np.testing.assert_array_equal(first.moments(0), sent.moments(0))


def test_all_datasets_of_a_mixture_have_moments_or_none(dataset, model, moments):
    def config(**second):
        parts = {name: {"directory": str(dataset), "encoded": str(moments)} for name in ("first", "second")}
        parts["second"] |= {"task_weights": {"editing": 1.0}, **second}
        return encoding_uno("", **{"data.mixture": parts, "data.directory": ""})

    [batch] = batches_of(config(), model, count=1)
    assert np.any(batch.latent_moments)
    with pytest.raises(ConfigError, match="moments .encoded. for some of its datasets: name them for all, or for none"):
        run_layout(config(encoded=""))
    with pytest.raises(ConfigError, match=r"config\.data\.mixture\.second\.encoded: .* was made with vae_transform"):
        check_encoded(config(vae_transform={"max_side": 8, "min_side": 8, "stride": 8}), autoencoder_of(model))


def test_shards_that_are_missing_are_made_again_with_the_same_bytes(dataset, model, moments, tmp_path):
    config, out = encoding_uno(dataset), tmp_path / "out"
    encode(config, str(model), out, quiet(), records_per_shard=10, part=(1, 3))
    assert 0 < len(contents(out)) < len(contents(moments))
    (out / ".moments-train.array_record-00000-of-00003.1.tmp").write_bytes(b"half a shard")
    encode(config, str(model), out, quiet(), records_per_shard=10)
    assert contents(out) == contents(moments)


def test_a_run_with_another_autoencoder_or_transform_is_refused(dataset, model, moments):
    config = encoding_uno(dataset, **{"data.encoded": str(moments)})
    check_encoded(config, autoencoder_of(model))
    other = jax.tree.map(lambda leaf: leaf + 1, autoencoder_of(model))
    with pytest.raises(ConfigError, match="was made with autoencoder .* or start from the checkpoint that it was made"):
        check_encoded(config, other)
    larger = encoding_uno(dataset, **{"data.encoded": str(moments), "data.vae_transform.min_side": 8})
    with pytest.raises(ConfigError, match="vae_transform .*'min_side': 16.* this run has .*'min_side': 8"):
        check_encoded(larger, autoencoder_of(model))


def test_another_command_does_not_mix_its_shards_with_those_of_a_folder(dataset, moments, model):
    config = encoding_uno(dataset, **{"data.max_picture_pixels": 1000})
    with pytest.raises(AnnexError, match=r"begun with another value of max_picture_pixels .* Give another --out"):
        encode(config, str(model), moments, quiet(), records_per_shard=10)


def test_moments_that_are_not_complete_are_refused(dataset, moments, model, tmp_path):
    shutil.copytree(moments, tmp_path / "out")
    (tmp_path / "out" / "moments-train.array_record-00001-of-00003").unlink()
    with pytest.raises(ConfigError, match="1 of 3 shards of split 'train' are missing. Run the command"):
        batches_of(encoding_uno(dataset, **{"data.encoded": str(tmp_path / "out")}), model)


def test_the_command_says_how_to_use_the_moments(dataset, model, moments, tmp_path):
    write_config(tmp_path / "config.py", dataset, AUTOENCODER)
    given = [f"--config={tmp_path / 'config.py'}", f"--out={moments}", "--records_per_shard=10"]
    printed = output_of(encode_command.main, [*given, f"--checkpoint={model}"])
    assert f"--config.data.encoded={moments}" in printed
    assert "encode needs a model: give --checkpoint" in error_of(encode_command.main, given)
