"""Small made-up records for the tests of the data pipeline."""

from functools import cache
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from uno_jax.batch import TASKS, Layout
from uno_jax.data.config import DataConfig
from uno_jax.data.methods import Inputs
from uno_jax.data.mixture import Mixture, one_dataset
from uno_jax.data.record import Record
from uno_jax.data.tokenizer import Tokenizer, train_tokenizer
from uno_jax.data.transforms import ImageTransform, encode_png

# Pictures of 16 pixels have 4 latent tokens, 4 ViT patches and 4 metaqueries.
LAYOUT = Layout(vit_patch_size=4, vit_table_side=4, pixels_per_token=8, max_latent_size=4, num_metaqueries=4)
VAE_TRANSFORM = ImageTransform(16, 8, 8)
VIT_TRANSFORM = ImageTransform(8, 4, 4)


def small_config(**changes) -> DataConfig:
    """Returns a config of four rows from two virtual shards. A row holds a few samples."""
    defaults = {
        "rows": 4,
        "virtual_shards": 2,
        "packing_bins": 2,
        "text_tokens": 48,
        "vit_tokens": 16,
        "caption_tokens": 24,
        "query_tokens": 8,
        "latent_tokens": 16,
        "vae_transform": VAE_TRANSFORM,
        "vit_transform": VIT_TRANSFORM,
        "metaquery_transform": VIT_TRANSFORM,
    }
    return DataConfig(**(defaults | changes))


def picture(seed: int = 0, width: int = 16, height: int = 16) -> bytes:
    """Returns a PNG of random pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return encode_png(Image.fromarray(pixels))


def make_record(number: int = 0, task: str = "text_to_image", **changes) -> Record:
    fields = {
        "id": f"record{number}",
        "task": task,
        "image": picture(number),
        "prompt": f"thing {number}",
        "captions": () if task == "understanding" else (f"number {number}", f"no {number}"),
        "sources": (picture(number + 1000),) if task == "editing" else (),
        "answer": "yes" if task == "understanding" else "",
    }
    return Record(**(fields | changes))


def make_records(count: int, tasks: tuple[str, ...] = TASKS[:3]) -> list[Record]:
    return [make_record(i, tasks[i % len(tasks)]) for i in range(count)]


def task_numbers(records: list[Record]) -> np.ndarray:
    return np.array([TASKS.index(record.task) for record in records], np.int32)


def mixture_of(records: list[Record], config: DataConfig) -> Mixture:
    return one_dataset(records, task_numbers(records), config)


@cache
def small_tokenizer() -> Tokenizer:
    with TemporaryDirectory() as directory:
        return train_tokenizer(["thing number yes no"] * 3, 280, directory)


def small_inputs() -> Inputs:
    return Inputs(small_tokenizer(), VAE_TRANSFORM, VIT_TRANSFORM, VIT_TRANSFORM)
