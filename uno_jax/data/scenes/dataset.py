"""The dataset of scenes: pictures with prompts and captions."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from PIL import Image

from uno_jax.data.record import Record
from uno_jax.data.scenes.draw import draw_scene
from uno_jax.data.scenes.generate import SPLITS, make_example
from uno_jax.data.scenes.scene import Scene
from uno_jax.data.sources.source import IMAGE_SIZE, DataSource, Opened, Option, Reporter, Values
from uno_jax.data.transforms import encode_png

PACKAGES = ("numpy", "pillow", "resvg-py")
_SCENES_AT_A_TIME = 64


def open_scenes(values: Values, reporter: Reporter) -> Opened:
    """Opens the splits: `values["scenes"]` training scenes, and `values["other_scenes"]` scenes in each other split."""
    numbers = {split: values["scenes" if split == "train" else "other_scenes"] for split in SPLITS}
    return Opened(
        splits={
            split: partial(split_records, values["seed"], split, number, values["image_size"])
            for split, number in numbers.items()
        },
        total=sum(numbers.values()),
        description="Drawings of coloured shapes with prompts and captions, made from a seed.",
        license="Made from a seed: nobody's work is in the pictures and texts. Use them freely (CC0 1.0).",
    )


def split_records(seed: int, split: str, number: int, image_size: int) -> Iterator[Record]:
    """Yields the records of the first `number` examples of a split. Several threads draw."""
    make = partial(_records_of, seed, split, image_size=image_size)
    with ThreadPoolExecutor() as threads:
        for start in range(0, number, _SCENES_AT_A_TIME):
            for records in threads.map(make, range(start, min(start + _SCENES_AT_A_TIME, number))):
                yield from records


def _records_of(seed: int, split: str, number: int, *, image_size: int) -> list[Record]:
    example = make_example(seed, split, number)
    image = draw_png(example.scene, image_size)
    return [Record(example.id, "text_to_image", image, example.prompt, example.captions)]


def draw_png(scene: Scene, size: int) -> bytes:
    """Draws a scene as a PNG file with sides of `size` pixels."""
    return encode_png(Image.fromarray(draw_scene(scene, size)))


def _identity(values: Values) -> dict[str, object]:
    return {
        **{option.name: values[option.name] for option in SCENES.options},
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


SCENES = DataSource(
    name="scenes",
    summary="drawings of coloured shapes, made from a seed",
    options=(
        Option("scenes", int, 100_000, "number of scenes of the split train", minimum=1),
        Option("other_scenes", int, 2_000, "number of scenes of each of the other splits", minimum=1),
        Option("seed", int, 0, "seed of the scenes", minimum=0),
        IMAGE_SIZE,
    ),
    identity=_identity,
    open=open_scenes,
    count_texts_once=True,
)
