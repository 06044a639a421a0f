"""A process that hangs ends, and says for what it waited and where.

Each test runs a program in a process of its own.
"""

from __future__ import annotations

import subprocess
import sys
import time

from tests.helpers.paths import ROOT
from uno_jax.process.watchdog import EXIT_STATUS

START = "import time, threading; from pathlib import Path; from uno_jax.process.watchdog import Watchdog\n"


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", START + program, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


HANGING = """
import sys
def wait_for_ever(): threading.Event().wait()
watchdog = Watchdog(0.5, log=Path(sys.argv[1]), detail=lambda: "of worker 3", tell=lambda text: print("told", text))
for step in range(3):
    watchdog.awaits(f"step {step}")
    time.sleep(0.3)
sys.stdout.flush()
wait_for_ever()
"""


def test_a_process_that_hangs_ends_with_the_stacks_of_its_threads(tmp_path):
    log = tmp_path / "watchdog.txt"
    ended = run(HANGING.replace('print("told", text)', 'print("told", text, flush=True)'), str(log))
    assert ended.returncode == EXIT_STATUS == 75
    message = "nothing happened for 0.5 s while waiting for step 2 (of worker 3)"
    assert message in ended.stderr
    assert ended.stdout == f"told {message}\n"
    for printed in (ended.stderr, log.read_text()):
        assert "in wait_for_ever" in printed
        assert message in printed


def test_progress_is_enough(tmp_path):
    """Ten waits of 0.3 s with a limit of 1 s."""
    program = "with Watchdog(1) as watchdog:\n for step in range(10):\n  watchdog.awaits('a step'); time.sleep(0.3)"
    ended = run(program)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_what_may_be_compiled_has_a_limit_of_its_own():
    program = "with Watchdog(0.2) as watchdog:\n watchdog.awaits('the first step', at_least=60); time.sleep(2)"
    ended = run(program)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_the_limit_of_a_step_holds_after_a_longer_one():
    program = (
        "watchdog = Watchdog(0.5); watchdog.awaits('the first step', at_least=60); watchdog.awaits('step 2')\n"
        "time.sleep(60)"
    )
    ended = run(program)
    assert ended.returncode == EXIT_STATUS
    assert "nothing happened for 0.5 s while waiting for step 2." in ended.stderr


def test_a_limit_of_zero_watches_nothing():
    ended = run("with Watchdog(0) as watchdog:\n watchdog.awaits('a step'); print(threading.active_count())")
    assert (ended.returncode, ended.stdout) == (0, "1\n")


def test_a_closed_watchdog_ends_nothing():
    ended = run("with Watchdog(0.2) as watchdog: watchdog.awaits('a step')\ntime.sleep(2)")
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_process_whose_python_is_blocked_ends_as_well():
    """`PyDLL` keeps the lock of the interpreter while it calls C, so no other Python thread runs."""
    began = time.monotonic()
    ended = run("import ctypes; watchdog = Watchdog(1); watchdog.awaits('C'); ctypes.PyDLL(None).sleep(100)")
    assert ended.returncode == 1
    assert "Timeout" in ended.stderr
    assert time.monotonic() - began < 60


def test_a_report_that_cannot_be_written_does_not_keep_the_process_alive():
    ended = run("Watchdog(0.2, log=Path('/nonexistent/file')).awaits('a step'); time.sleep(60)")
    assert ended.returncode == EXIT_STATUS
