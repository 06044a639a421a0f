"""Printed, logged and saved outputs of a run."""

from __future__ import annotations

import json

import jax
import numpy as np

from tests.helpers.tiny_run import (
    quiet,
    saved,
    tiny_uno,
)
from uno_jax.config import from_config_dict, to_json
from uno_jax.interop.load import load_model
from uno_jax.run.config import RunConfig
from uno_jax.run.run import run
from uno_jax.training.checkpoint_folders import find_checkpoint, read_asset
from uno_jax.training.metrics import read_metrics


def test_a_run_prints_its_sizes_and_its_held_out_losses(dataset, tmp_path):
    console = quiet()
    run(tiny_uno(dataset, steps=2), tmp_path, console=console)
    text = console.file.getvalue()
    for expected in (
        "generation expert",
        "caption tokens per step",
        "24 train, 24 test",
        "100.0% of the first 24",
        "samples per row",
        "steps per epoch",
        str(tmp_path)[:20],
        "step 2/2  flow ",
        "caption, prompt dropped",
        "constant predictor",
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
    for name in ("records", "caption", "visual", "prompt_dropped/caption", "constant/caption", "constant/visual"):
        assert f"held_out/{name}" in held_out[0]


def test_a_checkpoint_holds_config_model_and_tokenizer(dataset, unbroken):
    checkpoint = find_checkpoint(unbroken)
    config = from_config_dict(json.loads(read_asset(checkpoint, "config.json")), RunConfig)
    assert config == tiny_uno(dataset)
    assert json.loads(read_asset(checkpoint, "model.json")) == to_json(config.model)
    assert read_asset(checkpoint, "vocab.json") == (dataset / "tokenizer" / "vocab.json").read_bytes()


def test_the_model_of_a_run_is_loaded_with_its_parameters_or_its_ema(dataset, unbroken):
    params, ema_params = saved(unbroken, 6, "params"), saved(unbroken, 6, "ema")
    for ema in (False, True):
        model = load_model(unbroken, ema=ema)
        for path, leaf in jax.tree_util.tree_leaves_with_path(model.params):
            name = jax.tree_util.keystr(path)
            np.testing.assert_array_equal(leaf, ema_params[name] if ema and name in ema_params else params[name])
    assert model.config == tiny_uno(dataset).model
    assert model.vae_transform == tiny_uno(dataset).data.vae_transform
