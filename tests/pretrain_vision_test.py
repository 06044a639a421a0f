"""The command `uno_jax.pretrain_vision` teaches a vision encoder what lies where, and an autoencoder to draw it."""

from __future__ import annotations

import io
from pathlib import Path

import jax
import numpy as np
import pytest
from absl import flags
from rich.console import Console

from tests.helpers.tiny_run import write_dataset
from uno_jax import prepare_data, pretrain_vision
from uno_jax.config import from_config_dict
from uno_jax.data.decoding import decode_rgb
from uno_jax.data.records import first_records
from uno_jax.data.scenes.dataset import SCENES
from uno_jax.prepare_data import Request
from uno_jax.process.flags import define_config
from uno_jax.run.config import RunConfig
from uno_jax.training.autoencoder import redrawn
from uno_jax.training.initialise import init_autoencoder, init_params
from uno_jax.training.stored_trees import read_tree

pytestmark = pytest.mark.usefixtures("quick_compiles")

CONFIG = Path(__file__).parent.parent / "configs/scenes_pretrain.py"
SMALL = (
    f"--config={CONFIG}",
    "--config.model.vision.num_layers=1",
    "--config.model.vision.scan_unroll=1",
    "--config.model.autoencoder.transformer.num_layers=1",
    "--config.model.autoencoder.transformer.scan_unroll=1",
    "--config.model.decoder.hidden_size=16",
    "--config.model.decoder.mlp_size=16",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "data"
    values = {"scenes": 48, "other_scenes": 12, "seed": 0, "image_size": 64}
    prepare_data.prepare(Request(SCENES, values, folder, vocab_size=512), Console(file=io.StringIO()))
    return folder


def pretrain(*arguments: str) -> str:
    """Returns what the command prints."""
    console = Console(file=io.StringIO(), width=200)
    pretrain_vision.main([*SMALL, *arguments], console)
    return console.file.getvalue()


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory) -> tuple[Path, str]:
    """A model whose vision encoder and autoencoder have seen a few pictures, and what the command prints."""
    out = tmp_path_factory.mktemp("vision") / "out"
    steps = ("--steps=100", "--autoencoder_steps=60", "--batch=16")
    return out, pretrain(f"--config.data.directory={data}", f"--out={out}", *steps)


def test_colours_are_learned_within_a_hundred_steps(trained):
    share = float(trained[1].partition("colour ")[2].partition("%")[0])
    assert share > 40  # one in eight by chance


def config_of(data) -> RunConfig:
    options = flags.FlagValues()
    arguments = [*SMALL, f"--config.data.directory={data}"]
    define_config(options, arguments)
    options(["train", *arguments])
    return from_config_dict(options.config, RunConfig)


def test_only_the_vision_encoder_differs_from_random_initialisation(trained, data):
    config = config_of(data)
    before = init_params(config.model, config.seed)
    after = read_tree(trained[0] / "checkpoints/0/params", before)
    same = jax.tree.map(lambda a, b: bool(np.array_equal(a, b)), before, after)
    assert not any(jax.tree.leaves(same.pop("vision")))
    assert all(jax.tree.leaves(same))


def test_the_autoencoder_learns_to_draw_pictures(trained, data):
    config = config_of(data)
    random = init_autoencoder(config.model, config.seed)
    learned = read_tree(trained[0] / "checkpoints/0/autoencoder", random)
    records = first_records(data, "test", "text_to_image", 12)
    pictures = np.stack([decode_rgb(record.image, record.id) for record in records])

    def error(params) -> float:
        return float(np.mean((redrawn(params, config.model.autoencoder, pictures) / 255.0 - pictures / 255.0) ** 2))

    assert error(learned) < error(random) / 4
    assert "held-out pictures right after encoding and decoding: " in trained[1]


def test_the_published_autoencoder_is_not_trained(data, tmp_path):
    flux = ("--config.model.autoencoder.kind=flux", "--config.model.autoencoder.base_channels=32")
    with pytest.raises(SystemExit) as exit:
        pretrain(f"--config.data.directory={data}", f"--out={tmp_path / 'out'}", *flux)
    assert "config.model.autoencoder.kind is 'flux'" in str(exit.value.code)


def test_a_folder_with_a_model_is_left_alone(trained, data):
    assert "has a model already" in pretrain(f"--config.data.directory={data}", f"--out={trained[0]}")


def test_other_datasets_than_scenes_are_refused(tmp_path):
    other = write_dataset(tmp_path / "other")
    with pytest.raises(SystemExit) as exit:
        pretrain(f"--config.data.directory={other}", f"--out={tmp_path / 'out'}")
    assert "is no id of a record of scenes" in str(exit.value.code)
    assert not (tmp_path / "out").exists()
