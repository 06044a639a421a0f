"""Errors of the scorer of scenes: on drawn pictures, on distorted ones, and on outlines without a name.

    python benchmarks/scene_scorer.py accuracy --out=DIR       drawn pictures by category, and edits
    python benchmarks/scene_scorer.py distortions --out=DIR    pictures that are distorted more and more
    python benchmarks/scene_scorer.py unnamed --out=DIR        outlines that resemble no shape
    python benchmarks/scene_scorer.py samples --out=DIR        a hundred judged pictures on a sheet, to check by eye

Every picture is judged by the prompt of its scene. Half of the pictures show the scene itself, and half show it with
one change, so that its prompt is wrong for most of them. A judgement is an error if it differs from what the contents
of the shown scene say.

Each part prints a Markdown table (`samples` none) and writes a JSON file; `distortions` and `samples` also a picture.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from PIL import Image, ImageDraw
from scipy import ndimage

sys.path.append(str(Path(__file__).parent.parent))  # for a script only its own folder is on the path

from uno_jax.data.scenes.draw import draw_scene
from uno_jax.data.scenes.edits import edits_of
from uno_jax.data.scenes.facts import holds
from uno_jax.data.scenes.generate import CATEGORIES, Example, make_example
from uno_jax.data.scenes.scene import COLOURS, GROUNDS, SHAPES, Scene
from uno_jax.data.scenes.score import judge, judge_edit
from uno_jax.data.scenes.see import UNKNOWN, Seen, find_things
from uno_jax.sheets.samples import Example as Cell
from uno_jax.sheets.samples import Picture, make_sheet

Pixels = np.ndarray
SEED = 1
SIDE = 64


class Case(NamedTuple):
    """A picture and what is true of it."""

    asked: Example
    shown: Scene
    pixels: Pixels

    @property
    def true(self) -> bool:
        """Whether the shown scene follows the prompt."""
        things = self.shown.things
        return len(things) == self.asked.total and all(holds(fact, things) for fact in self.asked.facts)


def cases(numbers: Sequence[int], side: int) -> Iterator[Case]:
    """Yields two cases of each example: its own scene, and the scene with one change."""
    for number in numbers:
        example = make_example(SEED, "test", number)
        for shown in (example.scene, changed(example.scene, example.draws(use=9))):
            yield Case(example, shown, draw_scene(shown, side))


def changed(scene: Scene, draws: np.random.Generator) -> Scene:
    """Changes the shape or the colour of one thing, leaves one out, or exchanges the places of two."""
    things = list(scene.things)
    index = int(draws.integers(len(things)))
    thing = things[index]
    match draws.choice(["shape", "colour", "leave out", "exchange"] if len(things) > 1 else ["shape", "colour"]):
        case "shape":
            others = [shape for shape in SHAPES if shape != thing.shape]
            things[index] = dataclasses.replace(thing, shape=str(draws.choice(others)))
        case "colour":
            others = [colour for colour in COLOURS if colour != thing.colour]
            things[index] = dataclasses.replace(thing, colour=str(draws.choice(others)))
        case "leave out":
            del things[index]
        case "exchange":
            # What is exchanged is all but the places, so that a large thing has room.
            other = (index + 1) % len(things)
            mate = things[other]
            things[index] = dataclasses.replace(thing, shape=mate.shape, colour=mate.colour)
            things[other] = dataclasses.replace(mate, shape=thing.shape, colour=thing.colour)
    return Scene(tuple(things), scene.ground)


def accuracy(args: argparse.Namespace) -> dict[str, Any]:
    """Share of right judgements by category, and of right judgements of edits."""
    shares: dict[str, dict[str, float]] = {}
    seconds = []
    for place, category in enumerate(CATEGORIES):
        numbers = range(place, args.count * len(CATEGORIES), len(CATEGORIES))
        right: dict[bool, list[bool]] = {True: [], False: []}
        for case in cases(numbers, args.side):
            start = time.process_time()
            judged = judge(case.asked.facts, case.asked.total, case.pixels).right
            seconds.append(time.process_time() - start)
            right[case.true].append(judged == case.true)
        shares[category] = {"follow the prompt": np.mean(right[True]), "do not": np.mean(right[False])}
    done, undone = [], []
    for number in range(args.count // 3):
        for edit in edits_of(make_example(SEED, "test", number)):
            source, target = draw_scene(edit.source, args.side), draw_scene(edit.target, args.side)
            done.append(judge_edit(edit.facts, edit.total, edit.kept, source, target).right)
            other = draw_scene(changed(edit.target, np.random.default_rng(number)), args.side)
            undone.append(not judge_edit(edit.facts, edit.total, edit.kept, source, other).right)
    shares["edits"] = {"follow the prompt": np.mean(done), "do not": np.mean(undone)}
    print(f"{len(seconds)} pictures of {args.side} pixels, {1000 * np.mean(seconds):.2f} ms of one core each\n")
    print("| category | pictures that follow the prompt | pictures that do not |\n|---|---|---|")
    for category, of in shares.items():
        print(f"| {category} | {of['follow the prompt']:.2%} | {of['do not']:.2%} |")
    return {"side": args.side, "count": args.count, "right": shares, "milliseconds": 1000 * float(np.mean(seconds))}


def blur(pixels: Pixels, amount: float, rng: np.random.Generator) -> Pixels:
    return ndimage.gaussian_filter(pixels, (amount, amount, 0), mode="nearest")


def noise(pixels: Pixels, amount: float, rng: np.random.Generator) -> Pixels:
    return pixels + rng.normal(0, amount, pixels.shape)


def hue(pixels: Pixels, amount: float, rng: np.random.Generator) -> Pixels:
    """Rotates all colours around grey by an angle in degrees, either way."""
    angle = np.deg2rad(amount) * rng.choice([-1, 1])
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    return pixels @ (np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross).T


def brightness(pixels: Pixels, amount: float, rng: np.random.Generator) -> Pixels:
    return pixels * (1 + amount * rng.choice([-1, 1]))


def paleness(pixels: Pixels, amount: float, rng: np.random.Generator) -> Pixels:
    return (1 - amount) * pixels + amount * pixels.mean(axis=-1, keepdims=True)


def blocks(pixels: Pixels, amount: float, rng: np.random.Generator) -> Pixels:
    """Mixes in the mean colours of squares of an eighth of the side."""
    side = len(pixels) // 8
    means = pixels.reshape(8, side, 8, side, 3).mean(axis=(1, 3))
    return (1 - amount) * pixels + amount * means.repeat(side, axis=0).repeat(side, axis=1)


def wobble(pixels: Pixels, amount: float, rng: np.random.Generator) -> Pixels:
    """Displaces pixels smoothly, by a root mean square distance along each axis."""
    waves = ndimage.gaussian_filter(rng.normal(size=(2, *pixels.shape[:2])), (0, 4, 4), mode="wrap")
    waves *= amount / waves.std()
    places = np.indices(pixels.shape[:2]) + waves
    channels = [
        ndimage.map_coordinates(channel, places, order=1, mode="nearest") for channel in np.moveaxis(pixels, -1, 0)
    ]
    return np.stack(channels, axis=-1)


def together(pixels: Pixels, amount: float, rng: np.random.Generator) -> Pixels:
    """Applies all distortions, each by an amount that is harmless alone if `amount` is 1."""
    for distort, full in ALONE:
        pixels = distort(pixels, amount * full, rng)
    return pixels


ALONE = ((wobble, 0.7), (blocks, 0.4), (blur, 0.8), (hue, 6.0), (brightness, 0.1), (paleness, 0.2), (noise, 10.0))


class Distortion(NamedTuple):
    """A distortion and the amounts of it that are measured."""

    apply: Callable[[Pixels, float, np.random.Generator], Pixels]
    amounts: Sequence[float]
    unit: str

    def __call__(self, pixels: Pixels, amount: float, rng: np.random.Generator) -> Pixels:
        return np.clip(np.rint(self.apply(pixels.astype(float), amount, rng)), 0, 255).astype(np.uint8)


DISTORTIONS: Mapping[str, Distortion] = {
    "blur": Distortion(blur, (0, 0.5, 1, 1.5, 2, 2.5, 3), "standard deviation, pixels"),
    "noise": Distortion(noise, (0, 10, 20, 30, 40, 50, 60), "standard deviation, of 255"),
    "wobble": Distortion(wobble, (0, 0.5, 0.75, 1, 1.25, 1.5), "displacement, pixels"),
    "blocks": Distortion(blocks, (0, 0.2, 0.4, 0.5, 0.6, 0.7), "share of 8-pixel means"),
    "hue": Distortion(hue, (0, 4, 8, 12, 16, 20), "rotation, degrees"),
    "brightness": Distortion(brightness, (0, 0.1, 0.2, 0.3, 0.4, 0.5), "relative change"),
    "paleness": Distortion(paleness, (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6), "share of grey"),
    "together": Distortion(together, (0, 0.25, 0.5, 0.75, 1, 1.25, 1.5), "relative amount"),
}


def distortions(args: argparse.Namespace) -> dict[str, Any]:
    """Share of wrong judgements by distortion and amount."""
    drawn = list(cases(range(args.count // 2), SIDE))
    curves = {
        name: [_errors(drawn, distort, amount) for amount in distort.amounts] for name, distort in DISTORTIONS.items()
    }
    print("| distortion | amount | right ones judged wrong | wrong ones judged right |\n|---|---|---|---|")
    for name, curve in curves.items():
        for amount, (missed, passed) in zip(DISTORTIONS[name].amounts, curve, strict=True):
            print(f"| {name} | {amount:g} | {missed:.1%} | {passed:.1%} |")
    _draw_curves(curves, args.out / "scorer_errors.png")
    return {
        "count": len(drawn),
        "errors": {n: dict(zip(DISTORTIONS[n].amounts, c, strict=True)) for n, c in curves.items()},
    }


def _errors(drawn: Sequence[Case], distort: Distortion, amount: float) -> tuple[float, float]:
    """Returns the share of pictures that follow their prompt and are judged wrong, and the other way round."""
    rng = np.random.default_rng(0)
    wrong: dict[bool, list[bool]] = {True: [], False: []}
    for case in drawn:
        judged = judge(case.asked.facts, case.asked.total, distort(case.pixels, amount, rng)).right
        wrong[case.true].append(judged != case.true)
    return float(np.mean(wrong[True])), float(np.mean(wrong[False]))


def _draw_curves(curves: Mapping[str, Sequence[tuple[float, float]]], file: Path) -> None:
    """Draws a panel for each distortion, with the two kinds of errors over its amount."""
    figure = Figure(figsize=(12, 5), layout="constrained")
    panels = figure.subplots(2, -(-len(curves) // 2), sharey=True).ravel()
    for axes, (name, curve) in zip(panels, curves.items(), strict=True):
        missed, passed = zip(*curve, strict=True)
        axes.plot(DISTORTIONS[name].amounts, missed, "o-", color="tab:red", label="right pictures judged wrong")
        axes.plot(DISTORTIONS[name].amounts, passed, "s-", color="tab:blue", label="wrong pictures judged right")
        axes.set(title=name, xlabel=DISTORTIONS[name].unit)
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.grid(alpha=0.3)
    panels[0].legend(fontsize=8)
    figure.savefig(file, dpi=80, format="png")


def _ellipse(rng: np.random.Generator) -> np.ndarray:
    around = np.linspace(0, 2 * np.pi, 80, endpoint=False)
    return np.stack([np.cos(around), np.sin(around) / rng.uniform(1.6, 2.5)], axis=-1) @ _turn(rng)


def _rectangle(rng: np.random.Generator) -> np.ndarray:
    return np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * (1, 1 / rng.uniform(1.6, 4)) @ _turn(rng)


def _half_disc(rng: np.random.Generator) -> np.ndarray:
    around = np.linspace(0, np.pi, 40)
    return np.stack([np.cos(around), np.sin(around)], axis=-1) @ _turn(rng)


def _triangle_on_its_side(rng: np.random.Generator) -> np.ndarray:
    return np.array([(-0.85, -1), (-0.85, 1), (0.9, 0)]) * (rng.choice([-1, 1]), 1)


def _blob(rng: np.random.Generator) -> np.ndarray:
    """A smooth closed curve around the middle, up to three times as far from it in some directions as in others."""
    around = np.linspace(0, 2 * np.pi, 80, endpoint=False)
    waves = sum(rng.normal() / k * np.cos(k * around + rng.uniform(0, 2 * np.pi)) for k in range(2, 7))
    distance = np.exp(np.log(3) * (waves - waves.max()) / np.ptp(waves))
    return distance[:, None] * np.stack([np.cos(around), np.sin(around)], axis=-1)


def _turn(rng: np.random.Generator) -> np.ndarray:
    angle = rng.uniform(0, 2 * np.pi)
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


OUTLINES = {
    "ellipse, 1.6 to 2.5 times as long as wide": _ellipse,
    "rectangle, 1.6 to 4 times as long as wide": _rectangle,
    "half disc": _half_disc,
    "triangle on its side": _triangle_on_its_side,
    "random smooth blob": _blob,
}


def unnamed(args: argparse.Namespace) -> dict[str, Any]:
    """Share of outlines without a name that are seen as a shape."""
    rng = np.random.default_rng(SEED)
    named = {}
    for name, outline in OUTLINES.items():
        seen = [find_things(_paint(outline(rng), rng)) for _ in range(args.count)]
        named[name] = float(np.mean([any(thing.shape != UNKNOWN for thing in things) for things in seen]))
    print("| outline | seen as a shape |\n|---|---|")
    for name, share in named.items():
        print(f"| {name} | {share:.1%} |")
    return {"count": args.count, "named": named}


def _paint(corners: np.ndarray, rng: np.random.Generator) -> Pixels:
    """Paints an outline within [-1, 1] in a random colour, as large as a thing."""
    large = 8 * SIDE
    mask = Image.new("L", (large, large))
    places = large * (0.5 + corners * rng.uniform(0.13, 0.21))
    ImageDraw.Draw(mask).polygon([tuple(place) for place in places], fill=255)
    share = np.asarray(mask.resize((SIDE, SIDE), Image.Resampling.BOX))[..., None] / 255
    colour, ground = (list(table.values()) for table in (COLOURS, GROUNDS))
    mixed = share * colour[rng.integers(len(colour))] + (1 - share) * ground[rng.integers(len(ground))][0]
    return np.rint(mixed).astype(np.uint8)


SAMPLES = {
    "blur": 1.5,
    "noise": 30,
    "wobble": 1,
    "blocks": 0.5,
    "hue": 10,
    "brightness": 0.25,
    "paleness": 0.4,
    "together": 1,
}
"""Amounts of distortion on the sheet of samples."""


def samples(args: argparse.Namespace) -> dict[str, Any]:
    """Judges a hundred pictures, drawn ones and distorted ones, with what was seen in each."""
    rng = np.random.default_rng(SEED)
    cells = []
    drawn = list(cases(range(1000, 1050), SIDE))
    for index, case in enumerate(drawn):
        name = (*SAMPLES, "as drawn", "as drawn")[index % (len(SAMPLES) + 2)]
        pixels = DISTORTIONS[name](case.pixels, SAMPLES[name], rng) if name in SAMPLES else case.pixels
        judgement = judge(case.asked.facts, case.asked.total, pixels)
        label = f"{index + 1}. {'right' if judgement.right else 'wrong'}"
        if judgement.right != case.true:
            label += f" (scene: {'right' if case.true else 'wrong'})"
        cells.append(Cell("", case.asked.prompt, [Picture(label, pixels, _in_words(judgement.seen))]))
    sheet = make_sheet("Prompt, picture, judgement, and what the scorer saw", cells)
    sheet.save(args.out / "scorer_samples.png", optimize=True)
    return {"judged": len(cells)}


def _in_words(seen: Sequence[Seen]) -> str:
    names = [f"{thing.size} {thing.colour} {thing.shape}" for thing in seen]
    return "; ".join(f"{names.count(name)} {name}" for name in dict.fromkeys(names)) or "nothing"


PARTS = {
    "accuracy": (accuracy, 3000),
    "distortions": (distortions, 1000),
    "unnamed": (unnamed, 500),
    "samples": (samples, 100),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--out", type=Path, required=True, help="existing folder for JSON and pictures")
    parser.add_argument("--count", type=int, help="number of examples of a category, of pictures, or of outlines")
    parser.add_argument("--side", type=int, default=SIDE, help="side of the pictures of `accuracy` in pixels")
    args = parser.parse_args()
    run, count = PARTS[args.part]
    args.count = args.count or count
    (args.out / f"{args.part}.json").write_text(json.dumps(run(args), indent=1))


if __name__ == "__main__":
    main()
