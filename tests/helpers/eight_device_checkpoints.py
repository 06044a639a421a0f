"""Reads and writes checkpoints in a process with eight devices.

`XLA_FLAGS=--xla_force_host_platform_device_count=8 python -m tests.helpers.eight_device_checkpoints DIR` takes
DIR/public and the run DIR/run, both written on one device. It leaves in DIR: `placed.npz` (public, every leaf sharded
where possible), `imported` (public, imported on a mesh), `restored.npz` (the run's model on a mesh), `saved` (the same,
saved from there) and `resumed` (a whole train state, DIR/state, restored onto a mesh and saved from there). It prints
how many leaves were sharded in each.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from tests.helpers.small_checkpoint import TOKENIZER
from tests.helpers.small_model import small_model, small_params
from uno_jax.interop.imports import import_public
from uno_jax.interop.load import load_model
from uno_jax.interop.names import leaf_shape
from uno_jax.interop.public_files import open_public, place_public
from uno_jax.parallel.mesh import MeshConfig, make_mesh
from uno_jax.parallel.parameters import tree_shardings, with_shardings
from uno_jax.training.checkpoints import Checkpoints, restore_state, save_model
from uno_jax.training.state import UNO_TRAINABLE, TrainState, create_state

# Wide enough to shard kernels over eight devices.
WIDE = small_model(decoder={"mlp_size": 1024, "vocab_size": 640})


def place_sharded(directory: Path, mesh: Mesh) -> Any:
    """Loads a public directory with every leaf sharded over `fsdp` along its last divisible axis, if any."""
    public = open_public(directory)

    def sharding(path: tuple[str, ...]) -> NamedSharding:
        shape = leaf_shape(public.leaves()[path][1])
        axes = [axis for axis, size in enumerate(shape) if size % mesh.shape["fsdp"] == 0]
        return NamedSharding(mesh, PartitionSpec(*[None] * axes[-1], "fsdp") if axes else PartitionSpec())

    return place_public(public, sharding).params


def sharded_leaves(params: Any) -> int:
    return sum(not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(params))


def train_state(mesh: Mesh) -> TrainState:
    """Returns a state on the mesh, with optimizer state and EMA, in which all leaves differ."""
    state = create_state(small_params(WIDE), UNO_TRAINABLE, optax.adam(1e-3), ema=True)
    adam, *rest = state.opt_state
    mu, nu = (jax.tree.map(function, state.trainable) for function in (jnp.tanh, jnp.exp))
    adam = adam._replace(mu=mu, nu=nu, count=jnp.int32(3))
    state = state.replace(step=jnp.int32(3), opt_state=(adam, *rest), ema=jax.tree.map(jnp.square, state.ema))
    return jax.device_put(state, tree_shardings(state, mesh))


def resume(directory: Path, mesh: Mesh) -> TrainState:
    """Restores DIR/state onto the mesh and saves it as DIR/resumed."""
    target = with_shardings(jax.eval_shape(lambda: train_state(mesh)), mesh)
    saved = Checkpoints(directory / "state", keep=1, assets={})
    state, data_state = restore_state(directory / "state" / "3", target)
    again = Checkpoints(directory / "resumed", keep=1, assets={})
    again.save(3, state, data_state)
    again.close()
    saved.close()
    return state


def save_npz(file: Path, params: Any) -> None:
    np.savez(file, **{name: np.asarray(leaf) for name, leaf in flatten_dict(params, sep="/").items()})


def main(directory: Path) -> None:
    assert jax.device_count() == 8, f"{jax.device_count()} devices: set XLA_FLAGS as the docstring says"
    mesh = make_mesh(MeshConfig(data=2, fsdp=4))
    placed = place_sharded(directory / "public", mesh)
    save_npz(directory / "placed.npz", placed)
    imported = import_public(
        directory / "public",
        directory / "imported",
        make_mesh(MeshConfig(data=1, fsdp=8)),
        tokenizer=TOKENIZER,
        settings={},
    )
    restored = load_model(directory / "run", mesh=mesh).params
    save_npz(directory / "restored.npz", restored)
    files = (path for path in (directory / "run/checkpoints/3/assets").iterdir() if path.name != "commit_success.txt")
    assets = {path.name: path.read_bytes() for path in files}
    save_model(directory / "saved", restored, {}, assets)
    resumed = resume(directory, make_mesh(MeshConfig(data=1, fsdp=4, tensor=2)))
    print(
        json.dumps(
            [
                sharded_leaves(placed),
                sharded_leaves(imported.params),
                sharded_leaves(restored),
                sharded_leaves(resumed.opt_state),
                sharded_leaves(resumed.ema),
            ]
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
