"""Folders of generated pictures that a judge on this machine is asked about."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from tests.helpers.evaluate_command import fail, succeed
from tests.helpers.evaluated import HEAD
from tests.helpers.judge_server import Reply, Served, judge_server
from uno_jax.evaluation.benchmark import seed_of
from uno_jax.evaluation.record import Made, Record, write_record
from uno_jax.evaluation.registry import BENCHMARKS
from uno_jax.inference.picture_files import write_picture

Answering = Callable[[str, int], Reply]
"""Text of a question and number of times that it was asked -> reply."""


def write_generated(out: Path, name: str, data: Path, size: int = 16) -> Path:
    """Writes a folder as `evaluate generate` does for all items of published files, with square pictures of different
    colours."""
    benchmark = BENCHMARKS[name]
    items = benchmark.read(data).items
    if benchmark.unpack is not None:
        benchmark.unpack(data, out, items, "base")
    made = [
        Made(item.id, sample, seed_of(name, item.id, sample), benchmark.picture(item, sample, "base"))
        for item in items
        for sample in range(benchmark.samples)
    ]
    for number, picture in enumerate(made):
        (out / picture.file).parent.mkdir(parents=True, exist_ok=True)
        write_picture(out / picture.file, Image.new("RGB", (size, size), (number, 0, 99)), {})
    write_record(out, Record({"benchmark": name, **HEAD}, items, made))
    return out


def flags(out: Path, data: Path, url: str, prompts: Mapping[str, str] | None) -> list[str]:
    """Returns the arguments of `evaluate score` that ask a judge, with these texts or its own."""
    found = [f"--out={out}", f"--data={data}", f"--judge_url={url}", "--judge_model=judge"]
    if prompts is not None:
        file = out.parent / "prompts.json"
        file.write_text(json.dumps(prompts))
        found.append(f"--judge_prompts={file}")
    return found


def judged(
    out: Path, data: Path, answer: Answering, *more: str, prompts: Mapping[str, str] | None = None
) -> tuple[dict[str, Any], Served]:
    """Returns the score by a judge who answers so, and the server."""
    with judge_server(answer) as server:
        succeed("score", *flags(out, data, server.url, prompts), *more)
    return json.loads((out / "score.json").read_text()), server


def refused(
    out: Path, data: Path, answer: Answering, *more: str, prompts: Mapping[str, str] | None = None
) -> tuple[str, Served]:
    """Requires `evaluate score` to fail, and returns its message and the server."""
    with judge_server(answer) as server:
        message = fail("score", *flags(out, data, server.url, prompts), *more)
    return message, server


def text_of(request: Mapping[str, Any]) -> str:
    """Returns the text of a question."""
    return str(request["messages"][0]["content"][0]["text"])


def seen(request: Mapping[str, Any]) -> list[str | bytes]:
    """Returns what follows the text of a question: captions, and the files of pictures."""
    parts = request["messages"][0]["content"][1:]
    return [
        part["text"] if part["type"] == "text" else base64.b64decode(part["image_url"]["url"].split(",")[1])
        for part in parts
    ]
