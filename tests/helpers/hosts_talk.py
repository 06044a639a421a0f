"""Communication of hosts: agreeing to stop, gathering values, failing together.

Each host counts steps until host 1 asks to stop at its third step. Then it prints the step at which it stopped and the
gathered values. `--fail=I`: host I fails while the others wait for it. `--fail_last=I`: host I fails at the end.
`--kill=I`: host I is killed while the hosts communicate.
"""

from __future__ import annotations

import argparse
import os
import signal
import time

import jax

from tests.helpers.joined_host import join_from_options
from uno_jax.parallel.hosts import agree, failing_together, gather_json


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--fail", type=int)
    parser.add_argument("--fail_last", type=int)
    parser.add_argument("--kill", type=int)
    options = join_from_options(parser)
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
