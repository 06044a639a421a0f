"""Communication of hosts: agreeing to stop, gathering values, failing together.

Each host counts steps until host 1 asks to stop at its third step. Then it prints the step at which it stopped and the
gathered values. `--fail=I`: host I fails while the others wait for it. `--fail_last=I`: host I fails at the end.
`--kill=I`: host I is killed while the hosts communicate. `--stop=I`: host I is stopped, as if its machine hung.
`--hang=I`: host I never makes its third step, although it answers; a watchdog of `--patience` seconds ends it.
`--late=S`: host 1 has work of its own for S seconds at the end.
"""

from __future__ import annotations

import argparse
import os
import signal
import threading
import time

import jax

from tests.helpers.joined_host import join_from_options
from uno_jax.parallel.hosts import TIMEOUT, agree, failing_together, gather_json, report_failure
from uno_jax.process.watchdog import Watchdog


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--fail", type=int)
    parser.add_argument("--fail_last", type=int)
    parser.add_argument("--kill", type=int)
    parser.add_argument("--stop", type=int)
    parser.add_argument("--hang", type=int)
    parser.add_argument("--late", type=float, default=0)
    parser.add_argument("--patience", type=float, default=0)
    parser.add_argument("--timeout", type=float, default=TIMEOUT)
    options = join_from_options(parser)
    with failing_together(options.timeout), Watchdog(options.patience, tell=report_failure) as watchdog:
        if options.fail == jax.process_index():
            raise OSError("the disk is full")
        step, stopping = 0, agree(lambda: False)
        while not stopping():
            if step == 2 and options.kill == jax.process_index():
                os.kill(os.getpid(), signal.SIGKILL)
            if step == 2 and options.stop == jax.process_index():
                os.kill(os.getpid(), signal.SIGSTOP)
            watchdog.awaits(f"the batch of step {step + 1}")
            if step == 2 and options.hang == jax.process_index():
                print("hangs", flush=True)
                threading.Event().wait()
            watchdog.awaits(f"step {step + 1} and the other hosts", shared=True)
            stopping = agree(lambda at=step: jax.process_index() == 1 and at == 3)
            step += 1
        gathered = gather_json({"host": jax.process_index(), "texts": "é" * jax.process_index()})
        print(f"stopped at {step}, gathered {gathered}", flush=True)
        time.sleep(options.late * jax.process_index())
        if options.fail_last == jax.process_index():
            time.sleep(1)
            raise OSError("the disk is full")


if __name__ == "__main__":
    main()
