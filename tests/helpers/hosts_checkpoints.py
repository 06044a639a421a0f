"""Restores a checkpoint of one device on several hosts.

`python -m tests.helpers.hosts_checkpoints DIR --coordinator=.. --processes=.. --process=..` on each host restores the
train state DIR/state onto a mesh over all hosts' devices and saves it as DIR/resumed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tests.helpers.eight_device_checkpoints import resume, sharded_leaves
from tests.helpers.joined_host import join_from_options
from uno_jax.parallel.hosts import failing_together
from uno_jax.parallel.mesh import MeshConfig, make_mesh


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    options = join_from_options(parser)
    with failing_together():
        state = resume(options.directory, make_mesh(MeshConfig()))
        assert sharded_leaves(state.opt_state)
        assert not all(leaf.is_fully_addressable for leaf in state.opt_state[0].mu["latent_in"].values())


if __name__ == "__main__":
    main()
