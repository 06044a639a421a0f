"""Commands that were killed at any moment: the same command again gives the same folder as one that was not."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT
from tests.helpers.small_loaded import save_small_checkpoint
from tests.helpers.tiny_autoencoder import AUTOENCODER, encoding_uno, write_autoencoder
from tests.helpers.tiny_run import write_config

pytestmark = pytest.mark.slow


def start(arguments: list[str], out: Path, compiled: Path) -> subprocess.Popen:
    environment = {"JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": str(compiled)}
    environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    command = [sys.executable, "-m", "uno_jax.prepare_data", *arguments, f"--out={out}", "--records_per_shard=3"]
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | environment, stdout=subprocess.DEVNULL)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


@pytest.mark.parametrize("command", ["encode", "recaption"])
@pytest.mark.parametrize("files", [1, 4], ids=["after the first file", "after some shards"])
def test_a_command_that_was_killed_goes_on_and_ends_with_the_same_bytes(command, files, dataset, tmp_path):
    if command == "encode":
        write_config(tmp_path / "config.py", dataset, AUTOENCODER)
        model = write_autoencoder(encoding_uno(dataset), tmp_path / "model")
        arguments = ["encode", f"--config={tmp_path / 'config.py'}", f"--checkpoint={model}"]
    else:
        model = save_small_checkpoint(tmp_path / "model")
        arguments = ["recaption", f"--data={dataset}", f"--checkpoint={model}", "--temperature=1", "--max_length=8"]
    compiled, broken, unbroken = (tmp_path / name for name in ("compiled", "broken", "unbroken"))
    assert start(arguments, unbroken, compiled).wait() == 0
    process = start(arguments, broken, compiled)
    while not broken.is_dir() or len(contents(broken)) < files:
        assert process.poll() is None
        time.sleep(0.001)
    process.kill()
    process.wait()
    assert len(contents(broken)) < len(contents(unbroken))
    assert start(arguments, broken, compiled).wait() == 0
    assert sorted(path.name for path in broken.iterdir()) == sorted(contents(broken))
    assert contents(broken) == contents(unbroken)
