"""Complete runs of a tiny model on pictures of coloured squares."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import rich.console
from absl import flags
from PIL import Image

from configs import openmoji_uno
from tests.helpers.paths import ROOT
from uno_jax.config import from_config_dict, to_json
from uno_jax.data.record import Record
from uno_jax.data.records import write_records
from uno_jax.data.tokenizer import train_tokenizer
from uno_jax.data.transforms import encode_png
from uno_jax.run.config import RunConfig
from uno_jax.training.metrics import read_metrics

COLOURS = {"red": (255, 0, 0), "green": (0, 200, 0), "blue": (0, 0, 255)}


def picture(colour: tuple[int, int, int], corner: int) -> bytes:
    pixels = np.full((16, 16, 3), 255, np.uint8)
    pixels[corner : corner + 8, corner : corner + 8] = colour
    return encode_png(Image.fromarray(pixels))


def records(split: str) -> list[Record]:
    made = []
    for i in range(24):
        name = list(COLOURS)[i % 3]
        image = picture(COLOURS[name], i % 8)
        if i % 4 == 0:
            sources = (picture((0, 0, 0), i % 8),)
            made.append(Record(f"{split}_{i}", "editing", image, f"make it {name}", (f"a {name} square",), sources))
        else:
            captions = (f"a square painted {name}", f"{name} box")
            made.append(Record(f"{split}_{i}", "text_to_image", image, f"{name} square", captions))
    return made


def write_dataset(directory: Path) -> Path:
    """Writes a prepared dataset of 24 records per split, with a tokenizer."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # grain reads them
    splits = {split: lambda split=split: records(split) for split in ("train", "test")}
    write_records(directory, "squares", splits, description="squares", license_text="none")
    train_tokenizer([text for r in records("train") for text in (r.prompt, *r.captions)], 300, directory / "tokenizer")
    return directory


def tiny(config: Any, dataset: Path, **changes: Any) -> RunConfig:
    """Shrinks a real config, then applies `changes` (by dotted name)."""
    config.unlock()
    config.model.decoder.update(
        hidden_size=16, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=8, mlp_size=16, vocab_size=300
    )
    config.model.vision.update(hidden_size=8, num_layers=1, num_heads=2, mlp_size=8, table_side=2)
    config.model.max_latent_size = 2
    if config.model.num_metaqueries:
        config.model.num_metaqueries = 4
    config.data.directory = str(dataset)
    config.data.task_weights = {}  # proportions of the dataset
    config.data.update(rows=2, virtual_shards=2, text_tokens=32, vit_tokens=8, latent_tokens=12, packing_bins=2)
    config.data.update({name: 16 for name in ("caption_tokens", "query_tokens") if config.data[name]})
    for transform in (config.data.vae_transform, config.data.vit_transform, config.data.metaquery_transform):
        transform.update(max_side=16, min_side=16, stride=8)
    config.optimizer.update(schedule="constant", warmup_steps=0, ema_decay=0.9)
    config.objective.balance.every = 2
    config.checkpoint.update(every=2, keep=10)
    config.evaluation.update(every=0, records=6)
    config.pictures.update(every=0, timesteps=3, caption_tokens=6)
    config.update(steps=6, log_every=1, tensorboard=False, init_from="", random_frozen=True)
    config.update_from_flattened_dict(changes)
    return from_config_dict(config, RunConfig)


def tiny_uno(dataset: Path, **changes: Any) -> RunConfig:
    return tiny(openmoji_uno.get_config(), dataset, **changes)


def write_config(file: Path, dataset: Path, changes: Mapping[str, Any]) -> None:
    """Writes a config file for commands: `tiny_uno` with the changes."""
    file.write_text(
        "from pathlib import Path\n"
        "from tests.helpers.tiny_run import tiny_uno\n"
        "from uno_jax.config import to_config_dict\n"
        "def get_config():\n"
        f"    return to_config_dict(tiny_uno(Path({str(dataset)!r}), **{dict(changes)!r}))\n"
    )


def quiet() -> rich.console.Console:
    return rich.console.Console(file=io.StringIO(), width=120)


def saved(workdir: Path, step: int, item: str) -> dict[str, np.ndarray]:
    """Returns all arrays of one item of a checkpoint, by name."""
    import orbax.checkpoint as ocp

    tree = ocp.PyTreeCheckpointHandler().restore(workdir / "checkpoints" / str(step) / item)
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def assert_same_run(first: Path, second: Path, step: int) -> None:
    for item in ("params", "training", "ema"):
        a, b = saved(first, step, item), saved(second, step, item)
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name], err_msg=f"{item} {name}")
    assert metrics_without_speeds(first) == metrics_without_speeds(second)


def metrics_without_speeds(workdir: Path) -> list[dict[str, Any]]:
    """Metrics of a run that must not depend on how fast it was."""
    speeds = ("tokens_per_second", "images_per_second", "seconds_per_step")
    lines = read_metrics(workdir / "metrics.jsonl")
    return [{name: value for name, value in line.items() if name not in speeds} for line in lines]


PROGRAM = """
import json, pathlib, sys
from absl import flags
from flax.traverse_util import flatten_dict
from uno_jax.config import from_config_dict
from uno_jax.run.run import run
from uno_jax.run.config import RunConfig
flags.FLAGS.mark_as_parsed()
run(from_config_dict(json.loads(pathlib.Path(sys.argv[1]).read_text()), RunConfig), sys.argv[2])
"""


def start_process(config: RunConfig, workdir: Path, **environment: str) -> subprocess.Popen:
    """Starts a run in a separate process, which compiles its programs as this one does."""
    file = workdir.parent / "config.json"
    file.write_text(json.dumps(to_json(config)))
    quick = str(jax.config.values["jax_disable_most_optimizations"])
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(file), str(workdir)],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": quick} | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def finish(process: subprocess.Popen) -> None:
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()


def stop_at(step: int) -> Any:
    """Returns a `make_generate_pictures` that generates nothing and signals the process to stop at `step`."""

    def make(context: Any) -> Any:
        return lambda at, params: os.kill(os.getpid(), signal.SIGTERM) if at == step else None

    return make
