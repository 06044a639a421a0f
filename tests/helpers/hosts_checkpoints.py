"""Restores a checkpoint of one device on several hosts.

`python -m tests.helpers.hosts_checkpoints DIR --coordinator=.. --processes=.. --process=..` on each host restores the
train state DIR/state onto a mesh over all hosts' devices and saves it as DIR/resumed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tests.helpers.eight_device_checkpoints import resume, sharded_leaves
from uno_jax.parallel.hosts import failing_together, join_hosts
from uno_jax.parallel.mesh import MeshConfig, make_mesh


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--coordinator")
    parser.add_argument("--processes", type=int)
    parser.add_argument("--process", type=int)
    options = parser.parse_args()
    join_hosts(options.coordinator, options.processes, options.process)
    with failing_together():
        state = resume(options.directory, make_mesh(MeshConfig()))
        assert sharded_leaves(state.opt_state)
        assert not all(leaf.is_fully_addressable for leaf in state.opt_state[0].mu["latent_in"].values())


if __name__ == "__main__":
    main()
