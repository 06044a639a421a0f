"""The command `uno_jax.serve`, in a process of its own."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.helpers.paths import ROOT
from tests.helpers.served import wait_for
from tests.helpers.small_loaded import save_small_checkpoint
from uno_jax.serve import main


def started(checkpoint: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "uno_jax.serve", f"--checkpoint={checkpoint}", "--port=0", *arguments]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "UNO_API_KEY": "secret"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_the_command_says_where_it_serves_and_completes_its_requests_when_it_is_stopped(tmp_path):
    process = started(save_small_checkpoint(tmp_path / "tiny"))
    address = process.stdout.readline().strip().removeprefix("serving tiny at ").removesuffix("/v1")
    assert address.startswith("http://127.0.0.1:")
    with (
        httpx.Client(base_url=address, timeout=120, headers={"authorization": "Bearer secret"}) as client,
        concurrent.futures.ThreadPoolExecutor(1) as pool,
    ):
        assert wait_for(lambda: reached(client)) == 200
        assert httpx.get(f"{address}/v1/models").status_code == 401
        body = {"messages": [{"role": "user", "content": "thing"}], "max_tokens": 4}
        sent = pool.submit(client.post, "/v1/chat/completions", json=body)
        wait_for(lambda: "uno_running 1" in client.get("/metrics").text)
        process.send_signal(signal.SIGINT)
        assert sent.result().status_code == 200
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.strip() == "interrupted"


def reached(client: httpx.Client) -> int:
    """Returns the status of the server's health, or 0 before it listens."""
    try:
        return client.get("/health").status_code
    except httpx.ConnectError:
        return 0


def test_an_address_in_use_is_one_sentence_before_the_model_is_loaded(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit, match=f"cannot listen on 127.0.0.1:{port} .*give another --host or --port"):
            main([f"--checkpoint={tmp_path}", f"--port={port}"])


def test_without_its_packages_the_command_is_one_line():
    program = "import sys; sys.modules['fastapi'] = None; from uno_jax import serve"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "The server needs fastapi: pip install -r requirements-serve.txt, or pip install 'uno-jax[serve]'"
    ]
