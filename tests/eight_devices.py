"""Three train steps on one device and on meshes of eight, in a process that has eight.

`XLA_FLAGS=--xla_force_host_platform_device_count=8 python -m tests.eight_devices DIR` saves the parameters after the
steps as `DIR/<mesh>.npz`, and prints, for each mesh, the losses step by step and how many trainable leaves are cut.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from pathlib import Path

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from tests.made_up_plans import NAMED, Sample
from tests.small_model import model_batch, quick_jit, small_model, small_params
from uno_jax.batch import Batch
from uno_jax.objectives.config import ObjectiveConfig
from uno_jax.parallel.axes import MESH_AXES, on_mesh
from uno_jax.parallel.mesh import MeshConfig, batch_sharding, make_mesh, put_rows, replicated
from uno_jax.parallel.parameters import tree_shardings
from uno_jax.training.optimizer import OptimizerConfig, make_optimizer
from uno_jax.training.state import UNO_TRAINABLE, create_state
from uno_jax.training.step import StepConfig, make_train_step

MESHES = {
    "one": MeshConfig(data=1, fsdp=1),
    "data8": MeshConfig(data=8, fsdp=1),
    "fsdp8": MeshConfig(data=1, fsdp=8),
    "data2_fsdp2_tensor2": MeshConfig(data=2, fsdp=2, tensor=2),
    "fsdp4_tensor2": MeshConfig(fsdp=4, tensor=2),
    "data2_fsdp2_sequence2": MeshConfig(data=2, fsdp=2, sequence=2),
    "kernel_tensor4_sequence2": MeshConfig(fsdp=1, tensor=4, sequence=2),
}
"""Attention is dense, or by the kernel where the name begins so. The model has two key-value heads."""
LOSSES = ("loss", "flow", "caption", "visual")
# The MLP is wide enough for its kernels to be cut over fsdp. A large epsilon: where a gradient is close to 0, Adam
# would turn its rounding error into a whole step. Two microbatches: each takes rows from every device.
MLP_SIZE = 1024
CONFIG = StepConfig(
    small_model(decoder={"mlp_size": MLP_SIZE}),
    ObjectiveConfig(),
    OptimizerConfig(learning_rate=0.01, epsilon=1e-3, ema_decay=0.5, accumulation=2),
    steps=3,
    seed=0,
)


def batch_number(number: int) -> Batch:
    """Sixteen rows of one sample or two, and one row that is empty."""
    samples = [Sample(plan, occurrence=100 * number + i) for i, plan in enumerate(NAMED * 5)]
    return model_batch(*(samples[i : i + 1 + i % 2] for i in range(15)), [])


def run(name: str, batches: list[Batch]) -> tuple[dict[str, list[float]], int, dict[str, np.ndarray]]:
    """Losses of every step, cut leaves, and the trainable parameters and their averages after the last."""
    mesh_config = MESHES[name]
    kernel = {"attention": "kernel"} if name.startswith("kernel") else {}
    config = dataclasses.replace(CONFIG, model=small_model(decoder={"mlp_size": MLP_SIZE, **kernel}, vision=kernel))
    mesh = make_mesh(mesh_config, jax.devices()[: math.prod(getattr(mesh_config, axis) for axis in MESH_AXES)])
    state = create_state(small_params(CONFIG.model), UNO_TRAINABLE, make_optimizer(CONFIG.optimizer, 3), ema=True)
    shardings = tree_shardings(state, mesh)
    state = jax.device_put(state, shardings)
    step = quick_jit(
        on_mesh(mesh)(make_train_step(config)),
        in_shardings=(shardings, batch_sharding(mesh)),
        out_shardings=(shardings, replicated(mesh)),
        donate_argnums=0,
    )
    losses: dict[str, list[float]] = {loss: [] for loss in LOSSES}
    for batch in batches:
        state, metrics = step(state, put_rows(batch, mesh))
        for loss in LOSSES:
            losses[loss].append(float(metrics[loss]))
    cut = sum(not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(state.trainable))
    return losses, cut, flatten_dict({"params": state.trainable, "average": state.ema}, sep="/")


def main(directory: Path) -> None:
    assert jax.device_count() == 8, f"{jax.device_count()} devices: set XLA_FLAGS as the docstring says"
    batches = [batch_number(i) for i in range(CONFIG.steps)]
    start = flatten_dict({"params": small_params(CONFIG.model)}, sep="/")
    np.savez(directory / "start.npz", **jax.device_get(start))
    results = {}
    for name in MESHES:
        losses, cut, leaves = run(name, batches)
        np.savez(directory / f"{name}.npz", **jax.device_get(leaves))
        results[name] = {"losses": losses, "cut": cut}
    print(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
