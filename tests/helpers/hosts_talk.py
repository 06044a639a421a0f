"""What hosts have to say to each other; `--fail=I`: host I fails while the others wait for it; `--fail_last=I`: when
they are through; `--kill=I`: it is killed in the middle of the talk.

Each host counts steps until one of them, host 1 at its third, wants to stop; and prints the step at which it did, and
what every host gathered.
"""

from __future__ import annotations

import argparse
import os
import signal
import time

import jax

from uno_jax.parallel.hosts import agree, failing_together, gather_json, join_hosts


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--fail", type=int)
    parser.add_argument("--fail_last", type=int)
    parser.add_argument("--kill", type=int)
    parser.add_argument("--coordinator")
    parser.add_argument("--processes", type=int)
    parser.add_argument("--process", type=int)
    options = parser.parse_args()
    join_hosts(options.coordinator, options.processes, options.process)
    with failing_together():
        if options.fail == jax.process_index():
            raise OSError("the disk is full")
        step, stopping = 0, agree(lambda: False)
        while not stopping():
            if step == 2 and options.kill == jax.process_index():
                os.kill(os.getpid(), signal.SIGKILL)
            stopping = agree(lambda at=step: jax.process_index() == 1 and at == 3)
            step += 1
        gathered = gather_json({"host": jax.process_index(), "texts": "é" * jax.process_index()})
        print(f"stopped at {step}, gathered {gathered}", flush=True)
        if options.fail_last == jax.process_index():
            time.sleep(1)
            raise OSError("the disk is full")


if __name__ == "__main__":
    main()
