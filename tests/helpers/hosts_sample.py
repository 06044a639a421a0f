"""The command `uno_jax.sample` as one of several hosts of a cluster: joins them, then runs it with the other arguments.

The command itself joins hosts only where JAX finds the cluster, which CPUs are not.
"""

from __future__ import annotations

import argparse

from uno_jax import sample
from uno_jax.parallel.hosts import join_hosts


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--coordinator")
    parser.add_argument("--processes", type=int)
    parser.add_argument("--process", type=int)
    options, arguments = parser.parse_known_args()
    join_hosts(options.coordinator, options.processes, options.process)
    sample.main(arguments)


if __name__ == "__main__":
    main()
