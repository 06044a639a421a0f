"""Scripts that run as one of several hosts: their options, and joining the other hosts."""

from __future__ import annotations

import argparse

from uno_jax.parallel.hosts import TIMEOUT, join_hosts


def join_from_options(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Adds `--coordinator`, `--processes` and `--process` to a script's options, parses all, and joins the hosts."""
    parser.add_argument("--coordinator")
    parser.add_argument("--processes", type=int)
    parser.add_argument("--process", type=int)
    options = parser.parse_args()
    timeout = getattr(options, "timeout", TIMEOUT)
    join_hosts(options.coordinator, options.processes, options.process, timeout=timeout)
    return options
