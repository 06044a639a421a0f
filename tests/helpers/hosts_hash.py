"""The hash of a parameter that is sharded over two hosts of two devices. Each prints it."""

from __future__ import annotations

import argparse

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from tests.helpers.joined_host import join_from_options
from uno_jax.parallel.hosts import failing_together
from uno_jax.parallel.mesh import MeshConfig, make_mesh
from uno_jax.run.encoded import parameters_hash

WHOLE = {"layers": {"kernel": np.arange(32, dtype=np.float32).reshape(8, 4)}}


def main() -> None:
    join_from_options(argparse.ArgumentParser())
    with failing_together():
        sharding = NamedSharding(make_mesh(MeshConfig(data=1, fsdp=4)), PartitionSpec("fsdp"))
        own = jax.tree.map(lambda x: jax.make_array_from_callback(x.shape, sharding, lambda part: x[part]), WHOLE)
        assert not own["layers"]["kernel"].is_fully_addressable
        print("hash", parameters_hash(own), flush=True)


if __name__ == "__main__":
    main()
