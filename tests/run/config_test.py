"""Invalid configs are rejected before anything is computed."""

from __future__ import annotations

import pytest

from tests.helpers.tiny_run import (
    quiet,
    tiny_uno,
)
from uno_jax.config import ConfigError, dictionary_fields
from uno_jax.data.check import check_data_config
from uno_jax.models.config import training_layout
from uno_jax.parallel.mesh import make_mesh
from uno_jax.run.changes import config_fields
from uno_jax.run.config import RunConfig, check_config
from uno_jax.run.programs import config_errors
from uno_jax.run.run import run


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"model.decoder.num_heads": 3, "model.decoder.num_kv_heads": 2},
            "num_heads is 3, not a multiple of num_kv_heads",
        ),
        ({"model.num_metaqueries": 0}, "query_tokens is 16, but config.model.num_metaqueries is 0"),
        ({"objective.align_weight": 0.5}, r"trains the align loss, but config\.model\.align_layer is 0: .* 1 to 2"),
        ({"model.align_layer": 3}, r"config\.model\.align_layer is 3: expected at most the 2 layers"),
        ({"optimizer.accumulation": 3}, r"config\.data\.rows is 2, not a multiple of config\.optimizer"),
        ({"optimizer.warmup_steps": 7}, "warmup_steps is 7, more than the 6 steps"),
        ({"model.compute_dtype": "float16"}, "compute_dtype is 'float16': expected one of 'float32', 'bfloat16'"),
        (
            {"objective.balance.caption": 0.5, "objective.balance.every": 0},
            r"config\.objective\.balance\.every is 0, .* never measured: give at least 1",
        ),
        ({"objective.time_shift": 0.0}, r"config\.objective\.time_shift is 0\.0: give a positive number"),
        ({"evaluation.records": -1}, r"config\.evaluation\.records is -1: give at least 0"),
        ({"model.decoder.num_layers": 0}, r"config\.model\.decoder\.num_layers is 0: give at least 1"),
        ({"model.decoder.head_dim": 0}, r"config\.model\.decoder\.head_dim is 0: give at least 2"),
        ({"limits.spike_factor": 0.5}, r"config\.limits\.spike_factor is 0\.5: give at least 1"),
        ({"optimizer.ema_decay": 99.9}, r"config\.optimizer\.ema_decay is 99\.9: give a number from 0 to below 1"),
        ({"optimizer.learning_rate": float("nan")}, r"config\.optimizer\.learning_rate is nan: give at least 0"),
        (
            {"optimizer.clip_norm": float("inf")},
            r"config\.optimizer\.clip_norm is inf: give at least 0, and finite",
        ),
    ],
)
def test_inconsistent_sizes_are_rejected(dataset, changes, expected):
    with pytest.raises(ConfigError, match=expected):
        check_config(tiny_uno(dataset, **changes))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model.max_latent_size": 1}, "model.max_latent_size is 1"),
        ({"data.latent_tokens": 3}, "data.latent_tokens is 3"),
        ({"model.num_metaqueries": 3}, "model.num_metaqueries is 3"),
        ({"model.decoder.vocab_size": 270}, r"the vocabulary of the model is 270 \(model\.decoder\.vocab_size\)"),
        ({"mesh.data": 2}, "config.mesh.data .2. does not divide the number of devices"),
    ],
)
def test_a_run_rejects_settings_that_would_fail_later(dataset, tmp_path, changes, expected):
    with pytest.raises(ConfigError, match=expected):
        run(tiny_uno(dataset, **changes), tmp_path, console=quiet())


def is_refused(dataset, name: str, value: float) -> bool:
    """Whether the checks before a run refuse a value of a field, and name the field."""
    try:
        config = tiny_uno(dataset, **{name: value})
        check_config(config)
        make_mesh(config.mesh)
        config_errors(check_data_config, config.data, training_layout(config.model), ("text_to_image",))
    except ConfigError as error:
        field = "config.mesh.dcn" if name.startswith("mesh.dcn.") else name.split(".")[-1]  # slices are named together
        return field in str(error)
    return False


def test_every_number_of_a_config_has_a_range(dataset):
    numbers = {name: value for name, value in config_fields(tiny_uno(dataset)) if type(value) in (int, float)}
    absurd = {int: (-(10**6), 10**30), float: (float("nan"), float("inf"), -1e30)}
    tried = [(name, value) for name, default in numbers.items() for value in absurd[type(default)]]
    assert len(tried) > 160
    assert [(name, value) for name, value in tried if not is_refused(dataset, name, value)] == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"trainable": ("decoder/layers/genration",)}, "names 'decoder/layers/genration', which is no part of the"),
        ({"trainable": ()}, "so nothing would be trained: give beginnings of paths such as connector, decoder"),
        ({"trainable": ("align_head",)}, "so nothing would be trained"),
        ({"data.directory": "nowhere"}, "config.data.directory: 'nowhere': there is no such folder"),
        ({"data.split": "tests"}, "config.data.directory: .*split 'tests' .* is missing .*It has test, train"),
        ({"data.workers": -1}, "data.workers is -1, expected at least 0"),
        ({"data.task_weights": {"editing": float("nan")}}, "gives editing the weight nan, expected a finite number"),
    ],
)
def test_a_run_names_what_it_cannot_begin_with(dataset, tmp_path, changes, expected):
    with pytest.raises(ConfigError, match=expected):
        run(tiny_uno(dataset, **changes), tmp_path / "run", console=quiet())


def test_entries_of_dictionaries_can_be_overridden_on_the_command_line():
    assert dictionary_fields(RunConfig) == {"data.task_weights": float}
