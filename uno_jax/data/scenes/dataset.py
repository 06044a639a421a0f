"""The dataset of scenes: pictures with prompts and captions, questions and answers, and edits in rounds."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from PIL import Image

from uno_jax.data.record import Record
from uno_jax.data.scenes.draw import draw_scene
from uno_jax.data.scenes.edits import ROUNDS, edits_of
from uno_jax.data.scenes.generate import SPLITS, categories_of, make_example
from uno_jax.data.scenes.questions import list_of, questions_of
from uno_jax.data.scenes.scene import Scene
from uno_jax.data.sources.source import IMAGE_SIZE, DataSource, Opened, Option, Reporter, Values
from uno_jax.data.transforms import encode_png

PACKAGES = ("numpy", "pillow", "resvg-py")
SCENES_PER_EDITS = 6
"""One scene of so many has edits in `ROUNDS` rounds. Each has two questions: for everything, and for one thing. So half
of the records are questions, and a fifth are edits."""
_SCENES_AT_A_TIME = 64


def open_scenes(values: Values, reporter: Reporter) -> Opened:
    """Opens the splits: `values["scenes"]` training scenes, and `values["other_scenes"]` scenes in each other split."""
    scenes = {split: values["scenes" if split == "train" else "other_scenes"] for split in SPLITS}
    return Opened(
        splits={
            split: partial(split_records, values["seed"], split, number, values["image_size"])
            for split, number in scenes.items()
        },
        total=sum(_count(split, i) for split, number in scenes.items() for i in range(number)),
        description="Drawings of coloured shapes with captions, questions and answers, and edits, made from a seed.",
        license="Made from a seed, of no one's work: use pictures and texts as you like (CC0 1.0).",
    )


def split_records(seed: int, split: str, scenes: int, image_size: int) -> Iterator[Record]:
    """Yields the records of the first `scenes` examples of a split. Several threads draw."""
    make = partial(scene_records, seed, split, image_size=image_size)
    with ThreadPoolExecutor() as threads:
        for start in range(0, scenes, _SCENES_AT_A_TIME):
            for records in threads.map(make, range(start, min(start + _SCENES_AT_A_TIME, scenes))):
                yield from records


def scene_records(seed: int, split: str, number: int, *, image_size: int) -> list[Record]:
    """Makes the records of one example: text to image, then a question and edits if it has them."""
    example = make_example(seed, split, number)
    image = draw_png(example.scene, image_size)
    records = [Record(example.id, "text_to_image", image, example.prompt, example.captions)]
    for i, question in enumerate((list_of(example.scene), questions_of(example)[0]), start=1):
        name = f"{example.id}/question-{i}"
        records.append(Record(name, "understanding", image, question.text, answer=question.answer))
    if _has_edits(split, number):
        source = image
        for i, edit in enumerate(edits_of(example), start=1):
            target = draw_png(edit.target, image_size)
            name = f"{example.id}/edit-{i}"
            records.append(Record(name, "editing", target, edit.instruction, edit.captions, (source,)))
            source = target
    return records


def _has_edits(split: str, number: int) -> bool:
    return _turn(split, number) % SCENES_PER_EDITS == 0


def _turn(split: str, number: int) -> int:
    """Returns how often all categories had their turn, so that each has its part of the edits."""
    return number // len(categories_of(split))


def _count(split: str, number: int) -> int:
    """Returns the number of records of one example."""
    return 3 + ROUNDS * _has_edits(split, number)


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
