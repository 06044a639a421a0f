"""Runs three train steps on a mesh over the devices of one or several hosts.

`python -m tests.helpers.mesh_steps DIR MESH ... [--attention=kernel] [--coordinator=.. --processes=.. --process=..]`
runs them on each mesh (sizes of its four axes, such as `2,2,1,2`) of the first devices that it needs, with that
attention in decoder and vision encoder (default: dense; the kernel is interpreted). Host 0 saves the parameters and
their EMA after the steps as `DIR/MESH.npz`, and prints a JSON object: for each mesh the losses step by step, and how
many trainable leaves are sharded.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from pathlib import Path
from typing import Any, get_args

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from tests.helpers.joined_host import join_from_options
from tests.helpers.made_up_plans import NAMED, Sample
from tests.helpers.small_model import model_batch, quick_jit, small_model, small_params
from uno_jax.attention.attend import Attention
from uno_jax.batch import Batch
from uno_jax.objectives.config import ObjectiveConfig
from uno_jax.parallel.axes import on_mesh
from uno_jax.parallel.hosts import failing_together
from uno_jax.parallel.mesh import MeshConfig, batch_sharding, jit_replicated, make_mesh, own_rows, put_rows, replicated
from uno_jax.parallel.parameters import tree_shardings
from uno_jax.training.optimizer import OptimizerConfig, make_optimizer
from uno_jax.training.state import UNO_TRAINABLE, create_state
from uno_jax.training.step import StepConfig, make_train_step

LOSSES = ("loss", "flow", "caption", "visual")
# Epsilon is large, because Adam amplifies the rounding errors of gradients close to 0 to full updates. Each of the two
# microbatches takes rows from every device.
CONFIG = StepConfig(
    small_model(),
    ObjectiveConfig(),
    OptimizerConfig(learning_rate=0.01, epsilon=1e-3, ema_decay=0.5, accumulation=2),
    steps=3,
    seed=0,
)
ROWS = 16


def batch_number(number: int) -> Batch:
    """Returns fifteen rows of one or two samples, and an empty row."""
    samples = [Sample(plan, occurrence=100 * number + i) for i, plan in enumerate(NAMED * 5)]
    return model_batch(*(samples[i : i + 1 + i % 2] for i in range(ROWS - 1)), [])


def start() -> dict[str, np.ndarray]:
    """Returns the parameters before the first step."""
    return flatten_dict({"params": jax.device_get(small_params(CONFIG.model))}, sep="/")


def run(sizes: list[int], batches: list[Batch], attention: str) -> tuple[dict[str, list[float]], int, dict[str, Any]]:
    """Returns the losses of every step, the number of sharded leaves, and the final trainable parameters and EMA."""
    mesh = make_mesh(MeshConfig(*sizes), jax.devices()[: math.prod(sizes)])
    model = small_model(decoder={"attention": attention}, vision={"attention": attention})
    state = create_state(small_params(CONFIG.model), UNO_TRAINABLE, make_optimizer(CONFIG.optimizer, 3), ema=True)
    shardings = tree_shardings(state, mesh)
    state = jax.tree.map(
        lambda x, s: jax.make_array_from_callback(x.shape, s, np.asarray(x).__getitem__), state, shardings
    )
    step = quick_jit(
        on_mesh(mesh)(make_train_step(dataclasses.replace(CONFIG, model=model))),
        in_shardings=(shardings, batch_sharding(mesh)),
        out_shardings=(shardings, replicated(mesh)),
        donate_argnums=0,
    )
    losses: dict[str, list[float]] = {name: [] for name in LOSSES}
    for batch in batches:
        state, metrics = step(state, put_rows(own_rows(batch, mesh), mesh))
        for name in LOSSES:
            losses[name].append(float(metrics[name]))
    sharded = sum(not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(state.trainable))
    leaves = {"params": state.trainable, "ema": state.ema}
    return losses, sharded, flatten_dict(jit_replicated(lambda x: x, mesh)(leaves), sep="/")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("meshes", nargs="+")
    parser.add_argument("--attention", choices=get_args(Attention), default="dense")
    options = join_from_options(parser)
    with failing_together():
        batches = [batch_number(i) for i in range(CONFIG.steps)]
        results = {}
        for mesh in options.meshes:
            losses, sharded, leaves = run([int(size) for size in mesh.split(",")], batches, options.attention)
            results[mesh] = {"losses": losses, "sharded": sharded}
            if jax.process_index() == 0:
                np.savez(options.directory / f"{mesh}.npz", **jax.device_get(leaves))
        if jax.process_index() == 0:
            print(json.dumps(results), flush=True)


if __name__ == "__main__":
    main()
