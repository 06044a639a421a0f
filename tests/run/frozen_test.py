"""A run with frozen kernels in int8: its checkpoints hold the originals, and it resumes from them."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from tests.helpers.tiny_run import assert_same_run, quiet, saved, stop_at, tiny_uno
from uno_jax.config import ConfigError
from uno_jax.parallel.mesh import make_mesh
from uno_jax.run.config import check_config
from uno_jax.run.programs import abstract_state
from uno_jax.run.run import run
from uno_jax.training.initialise import init_params
from uno_jax.training.state import ADAPTERS_TRAINABLE

QUICK = {"evaluation.records": 0, "objective.balance.every": 0}


def adapted(dataset, base="", **changes):
    config = tiny_uno(dataset, **{"frozen_weights": "int8", "model.decoder.adapter_rank": 2, **changes})
    return dataclasses.replace(config, init_from=str(base), trainable=ADAPTERS_TRAINABLE)


def test_checkpoints_hold_the_originals_and_a_resumed_run_equals_an_unbroken_one_bit_for_bit(dataset, tmp_path):
    base, resumed, at_once = tmp_path / "base", tmp_path / "resumed", tmp_path / "at_once"
    assert run(adapted(dataset, **QUICK, steps=1), base, console=quiet())
    stopped = adapted(dataset, base, **QUICK, steps=3, **{"pictures.every": 1})
    assert not run(stopped, resumed, make_generate_pictures=stop_at(1), console=quiet())
    for workdir in (resumed, at_once):
        assert run(adapted(dataset, base, **QUICK, steps=3), workdir, console=quiet())
    assert_same_run(resumed, at_once, 3)
    config = adapted(dataset)
    exact = flatten_dict(init_params(config.model, config.seed))
    first, last = saved(base, 1, "params"), saved(resumed, 3, "params")
    assert last.keys() == {"".join(f"['{name}']" for name in path) for path in exact}
    frozen = [path for path in exact if path[:2] == ("decoder", "layers") and "adapters" not in path]
    for path in frozen:
        for found in (first, last):
            np.testing.assert_array_equal(found["".join(f"['{name}']" for name in path)], exact[path])


@pytest.mark.parametrize("unroll", [1, 2])
def test_the_planned_state_has_frozen_kernels_in_int8_and_trained_ones_as_they_are(dataset, unroll):
    config = adapted(dataset, **{"model.decoder.scan_unroll": unroll})
    state = abstract_state(config, make_mesh(config.mesh))
    frozen = flatten_dict(state.frozen, sep="/")
    expert = frozen["decoder/layers/generation/query/kernel"]
    assert (expert if unroll == 1 else expert.arrays[0]).dtype == jnp.int8
    assert frozen["decoder/embedding"].dtype == jnp.float32
    assert all(leaf.dtype == jnp.float32 for leaf in flatten_dict(state.trainable).values() if hasattr(leaf, "dtype"))


def test_gradient_norms_of_a_frozen_expert_in_int8_are_refused(dataset):
    config = dataclasses.replace(adapted(dataset), trainable=("latent_in",))
    with pytest.raises(ConfigError, match=r"frozen_weights is 'int8', but config\.objective\.balance\.every is 2"):
        check_config(config)
