"""Ctrl-C while a command starts, and later."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests.helpers.paths import ROOT


def heed() -> None:
    """Lets a process heed Ctrl-C, which shells make background jobs ignore, with all that they start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize(
    ("during", "printed"),
    [
        ("end_at_interrupts()", "interrupted\n"),
        ("end_at_interrupts(); weakref.finalize(sys, signal.raise_signal, signal.SIGINT)()", "interrupted\n"),
        ("end_at_interrupts(); raise_interrupts()", "cleaned up\ninterrupted\n"),
    ],
)
def test_an_interrupt_ends_a_command_with_one_line(during, printed):
    program = (
        "import signal, sys, weakref\n"
        "from uno_jax.process.errors import exit_with_message\n"
        "from uno_jax.process.interrupts import end_at_interrupts, raise_interrupts\n"
        f"{during}\n"
        "try:\n"
        "    signal.raise_signal(signal.SIGINT)\n"
        "except KeyboardInterrupt:\n"
        "    print('cleaned up', file=sys.stderr)\n"
        "    with exit_with_message():\n"
        "        raise\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, preexec_fn=heed, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (130, printed)


def test_a_command_that_imports_its_libraries_can_be_interrupted():
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "uno_jax.sample", "--help"],
        cwd=ROOT,
        preexec_fn=heed,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    next(line for line in process.stderr if line.split("|")[-1].strip() == "numpy")
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate()
    assert (process.returncode, output, errors.splitlines()[-1]) == (130, "", "interrupted")
