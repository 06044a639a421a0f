"""The configs that come with the project, and the command line that changes them."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys

import numpy as np
import pytest

from tests.helpers.paths import ROOT
from uno_jax.config import from_config_dict
from uno_jax.data.check import check_data_config
from uno_jax.data.packing import pack
from uno_jax.data.transforms import ImageTransform
from uno_jax.models.autoencoder import make_autoencoder
from uno_jax.models.config import ModelConfig, training_layout
from uno_jax.run.config import RunConfig, check_config
from uno_jax.run.held_out import held_out_data

FILES = [path.relative_to(ROOT / "configs").with_suffix("") for path in (ROOT / "configs").rglob("*.py")]
# Not what others are built from, nor those of studies.
NAMES = sorted(
    ".".join(path.parts)
    for path in FILES
    if path.stem not in ("__init__", "base", "text_to_image") and path.parts[0] != "study"
)


def read(name: str) -> RunConfig:
    return from_config_dict(importlib.import_module(f"configs.{name}").get_config(), RunConfig)


def test_the_base_is_the_defaults():
    assert read("base") == RunConfig()


@pytest.mark.parametrize("name", NAMES)
def test_every_config_can_be_run(name):
    config = read(name)
    check_config(config)
    make_autoencoder(config.model.autoencoder)
    for data in (config.data, *(held_out_data(config, prompts=prompts) for prompts in (True, False))):
        check_data_config(data, training_layout(config.model), tuple(data.task_weights) or ("text_to_image", "editing"))


@pytest.mark.parametrize("name", NAMES)
def test_every_config_says_what_it_is_for(name):
    assert len(importlib.import_module(f"configs.{name}").__doc__.split()) > 10


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith(("bagel_7b", "tpu"))])
def test_7b_configs_have_the_published_sizes(name):
    model, published = read(name).model, ModelConfig()
    assert (model.vision, model.autoencoder) == (published.vision, published.autoencoder)
    sizes = ("hidden_size", "num_layers", "num_heads", "num_kv_heads", "head_dim", "mlp_size", "vocab_size", "norm_eps")
    assert all(getattr(model.decoder, size) == getattr(published.decoder, size) for size in sizes)


def test_pictures_of_many_shapes_fill_the_latents_of_rows_for_512_pixels():
    """The mix of `benchmarks/input_pipeline.py` with --edits=0.25: its sizes of pictures, and its tokens of texts."""
    data, rng = read("bagel_7b_uno_512").data, np.random.default_rng(0)

    def picture() -> tuple[int, int]:
        aspect, longest = np.exp(rng.uniform(-np.log(3), np.log(3))), 512 * rng.uniform(1.0, 2.5)
        return (int(longest), int(longest / aspect)) if aspect > 1 else (int(longest * aspect), int(longest))

    def tokens(transform: ImageTransform, size: tuple[int, int]) -> int:
        width, height = transform.size(*size)
        return width * height // transform.stride**2

    samples = []
    for _ in range(1500):
        target, source, is_edit = picture(), picture(), rng.random() < 0.25
        latents = tokens(data.vae_transform, target) + is_edit * tokens(data.vae_transform, source)
        vit, query = is_edit * tokens(data.vit_transform, source), tokens(data.metaquery_transform, target)
        text, caption = rng.integers(22, 235) + 4 * is_edit, rng.integers(40, 450)
        samples.append([text, vit, caption, query, latents])
    packing = pack(np.array(samples), data.capacities, data.packing_bins)
    assert packing.padding["latent"] < 0.05


def train(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "uno_jax.train", *arguments],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("override", "status", "expected"),
    [
        ("--config.data.rosw=3", 2, ('Did you mean "rows"', "--config.data.rosw=3")),
        ("--config.data.rows=many", 2, ("--config.data.rows=many", "expected a whole number")),
        ("--config.optimizer.nonfinite=stopp", 1, ("config.optimizer.nonfinite is 'stopp'", "did you mean stop?")),
        ("--config.data.directory=nowhere", 1, ("'nowhere': there is no such folder", "prepare_data")),
    ],
)
def test_a_wrong_override_is_one_message_and_no_traceback(tmp_path, override, status, expected):
    result = train("--config=configs/openmoji_pretrain.py", f"--workdir={tmp_path}", override)
    assert result.returncode == status
    assert "Traceback" not in result.stderr
    for part in expected:
        assert part in result.stderr
