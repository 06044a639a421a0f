"""Rows of a batch on hosts whose devices are not neighbours in the mesh, which is common on TPUs.

For two hosts of two devices. Each prints the devices of its rows, and a batch after `own_rows` and `put_rows`.
"""

from __future__ import annotations

import argparse

import jax
import numpy as np

from tests.helpers.joined_host import join_from_options
from uno_jax.parallel.hosts import failing_together
from uno_jax.parallel.mesh import MeshConfig, jit_replicated, make_mesh, own_rows, put_rows, row_share

# Host 0 has devices 0 and 1.
INTERLEAVED = (0, 2, 1, 3)


def main() -> None:
    join_from_options(argparse.ArgumentParser())
    with failing_together():
        devices = jax.devices()
        mesh, batch = make_mesh(MeshConfig(), [devices[i] for i in INTERLEAVED]), {"record": np.arange(8)}
        there = jit_replicated(lambda x: x, mesh)(put_rows(own_rows(batch, mesh), mesh))
        print("parts", row_share(mesh).parts)
        print("batch", np.asarray(there["record"]).tolist(), flush=True)


if __name__ == "__main__":
    main()
