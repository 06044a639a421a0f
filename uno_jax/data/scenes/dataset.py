"""The dataset of scenes: pictures with prompts and captions, questions and answers, and edits in rounds."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from functools import partial

from PIL import Image

from uno_jax.data.record import Record
from uno_jax.data.scenes.draw import draw_scene
from uno_jax.data.scenes.edits import edits_of
from uno_jax.data.scenes.generate import SPLITS, categories_of, make_example
from uno_jax.data.scenes.questions import list_of, questions_of
from uno_jax.data.scenes.scene import Scene
from uno_jax.data.sources.source import IMAGE_SIZE, DataSource, Made, Opened, Option, Reporter, Values
from uno_jax.data.transforms import encode_png

PACKAGES = ("numpy", "pillow", "resvg-py")
SCENES_PER_EDITS = 6
"""One scene of so many has edits in `ROUNDS` rounds. Each has two questions: for everything, and for one thing. So half
of the records are questions, and a fifth are edits."""


def open_scenes(values: Values, reporter: Reporter) -> Opened:
    """Opens the splits: `values["scenes"]` training scenes, and `values["other_scenes"]` scenes in each other split."""
    scenes = {split: values["scenes" if split == "train" else "other_scenes"] for split in SPLITS}
    return Opened(
        pieces=tuple(partial(_items, split, number) for split, number in scenes.items()),
        make=partial(_make, values["seed"], values["image_size"]),
        total=sum(scenes.values()),
        description="Drawings of coloured shapes with captions, questions and answers, and edits, made from a seed.",
        license="Made from a seed, of no one's work: use pictures and texts as you like (CC0 1.0).",
    )


def _items(split: str, scenes: int) -> Iterator[tuple[str, int]]:
    return ((split, number) for number in range(scenes))


def _make(seed: int, image_size: int, item: tuple[str, int]) -> Made:
    split, number = item
    return Made(split, tuple(scene_records(seed, split, number, image_size=image_size)))


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


def draw_png(scene: Scene, size: int) -> bytes:
    """Draws a scene as a PNG file with sides of `size` pixels."""
    return encode_png(Image.fromarray(draw_scene(scene, size)))


def _identity(values: Values) -> dict[str, object]:
    return {
        **{option.name: values[option.name] for option in SCENES.options},
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


_MOST = 10_000_000
"""Maximum number of scenes of a split."""

SCENES = DataSource(
    name="scenes",
    summary="drawings of coloured shapes, made from a seed",
    options=(
        Option("scenes", int, 100_000, "number of scenes of the split train", 1, _MOST),
        Option("other_scenes", int, 2_000, "number of scenes of each of the other splits", 1, _MOST),
        Option("seed", int, 0, "seed of the scenes", minimum=0),
        IMAGE_SIZE,
    ),
    identity=_identity,
    open=open_scenes,
    count_texts_once=True,
)
