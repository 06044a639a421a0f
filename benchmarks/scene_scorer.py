"""Errors of the scorer of scenes: on drawn pictures, on distorted ones, and on outlines without a name.

    python benchmarks/scene_scorer.py scenes --out=DIR         a sheet of scenes with their texts, and of edits
    python benchmarks/scene_scorer.py accuracy --out=DIR       drawn pictures by category, and edits
    python benchmarks/scene_scorer.py distortions --out=DIR    pictures that are distorted more and more
    python benchmarks/scene_scorer.py unnamed --out=DIR        outlines that resemble no shape
    python benchmarks/scene_scorer.py turned --out=DIR         shapes that are turned
    python benchmarks/scene_scorer.py samples --out=DIR        a hundred judged pictures on a sheet, to check by eye

Every picture is judged by the prompt of its scene. Half of the pictures show the scene itself, and half show it with
one change, so that its prompt is wrong for most of them. A judgement is an error if it differs from what the contents
of the shown scene say.

Each part writes a JSON file; all but `scenes` and `samples` print a Markdown table; `scenes`, `distortions` and
`samples` write a picture. `docs/scenes.md` shows the results.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from PIL import Image, ImageDraw
from scipy import ndimage

sys.path.append(str(Path(__file__).parent.parent))  # for a script only its own folder is on the path

from uno_jax.data.record import Record
from uno_jax.data.scenes.dataset import draw_png
from uno_jax.data.scenes.draw import draw_scene
from uno_jax.data.scenes.edits import edits_of
from uno_jax.data.scenes.facts import Fact, holds
from uno_jax.data.scenes.generate import CATEGORIES, SPLITS, Example, categories_of, make_example
from uno_jax.data.scenes.scene import COLOURS, GROUNDS, SHAPES, SIZES, Ground, Place, Scene, Thing
from uno_jax.data.scenes.score import judge, judge_edit
from uno_jax.data.scenes.see import UNKNOWN, Seen, find_things
from uno_jax.sheets.records import make_contact_sheet
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
        return _follows(self.shown, self.asked.facts, self.asked.total)


def _follows(scene: Scene, facts: Sequence[Fact], total: int) -> bool:
    """Whether facts hold for the contents of a scene, and it has the right number of things."""
    return len(scene.things) == total and all(holds(fact, scene.things) for fact in facts)


def cases(numbers: Sequence[int], side: int, split: str = "test") -> Iterator[Case]:
    """Yields two cases of each example: its own scene, and the scene with one change."""
    for number in numbers:
        example = make_example(SEED, split, number)
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


class Share(NamedTuple):
    """How many of some judgements are right."""

    right: int
    judged: int

    def __str__(self) -> str:
        return f"{self.right / self.judged:.2%} of {self.judged:,}"


def accuracy(args: argparse.Namespace) -> dict[str, Any]:
    """Right judgements by category, and of edits."""
    shares: dict[str, dict[str, Share]] = {}
    seconds = []
    categories = categories_of(args.split)
    for place, category in enumerate(categories):
        numbers = range(place, args.count * len(categories), len(categories))
        agreed: list[tuple[bool, bool]] = []
        for case in cases(numbers, args.side, args.split):
            start = time.process_time()
            judged = judge(case.asked.facts, case.asked.total, case.pixels).right
            seconds.append(time.process_time() - start)
            agreed.append((case.true, judged == case.true))
        shares[category] = _shares(agreed)
    shares["edits"] = _shares(
        agreement for number in range(args.count // 3) for agreement in edit_agreements(number, args.side, args.split)
    )
    print(f"{len(seconds)} pictures of {args.side} pixels, {1000 * np.mean(seconds):.2f} ms of one core each\n")
    print("| category | pictures that follow the prompt | pictures that do not |\n|---|---|---|")
    for category, of in shares.items():
        print(f"| {category} | {of['follow the prompt']} | {of['do not']} |")
    return {
        "split": args.split,
        "side": args.side,
        "count": args.count,
        "right": {category: {kind: share._asdict() for kind, share in of.items()} for category, of in shares.items()},
        "milliseconds": 1000 * float(np.mean(seconds)),
    }


def edit_agreements(number: int, side: int, split: str) -> Iterator[tuple[bool, bool]]:
    """Yields, for the result of each edit and for the result with one more change, the truth and the agreement."""
    for turn, edit in enumerate(edits_of(make_example(SEED, split, number))):
        source = draw_scene(edit.source, side)
        for shown in (edit.target, changed(edit.target, np.random.default_rng((number, turn)))):
            kept = all(thing in shown.things for thing in edit.kept)
            true = kept and _follows(shown, edit.facts, edit.total)
            judged = judge_edit(edit.facts, edit.total, edit.kept, source, draw_scene(shown, side)).right
            yield true, judged == true


def _shares(agreed: Iterable[tuple[bool, bool]]) -> dict[str, Share]:
    """Counts agreements with the truth apart for pictures that follow the prompt and for those that do not."""
    of: dict[bool, list[bool]] = {True: [], False: []}
    for true, agrees in agreed:
        of[true].append(agrees)
    return {
        name: Share(sum(of[true]), len(of[true])) for name, true in (("follow the prompt", True), ("do not", False))
    }


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
    print("| distortion | no error up to | right ones judged wrong / wrong ones judged right |\n|---|---|---|")
    for name, curve in curves.items():
        amounts = DISTORTIONS[name].amounts
        harmless = sum(1 for _ in itertools.takewhile(lambda errors: errors == (0, 0), curve))
        beyond = zip(amounts[harmless:], curve[harmless:], strict=True)
        listed = ", ".join(f"{amount:g}: {missed:.1%} / {passed:.1%}" for amount, (missed, passed) in beyond)
        print(f"| {name} ({DISTORTIONS[name].unit}) | {amounts[harmless - 1] if harmless else '-'} | {listed} |")
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


ANGLES = (5, 10, 15, 20, 30, 45)


def turned(args: argparse.Namespace) -> dict[str, Any]:
    """Shows as what shapes are seen that are turned, in degrees."""
    rng = np.random.default_rng(SEED)
    seen = {shape: {angle: _seen_turned(shape, angle, args.count, rng) for angle in ANGLES} for shape in SHAPES}
    print("| shape | " + " | ".join(f"{angle}°" for angle in ANGLES) + " |\n|---" + "|---" * len(ANGLES) + "|")
    for shape, by_angle in seen.items():
        cells = [", ".join(f"{number} {name}" for name, number in of.items()) for of in by_angle.values()]
        print(f"| {shape} | " + " | ".join(cells) + " |")
    return {"count": args.count, "seen": seen}


def _seen_turned(shape: str, angle: float, count: int, rng: np.random.Generator) -> dict[str, int]:
    """Counts the shapes that are seen, the most frequent first."""
    names: Counter[str] = Counter()
    for _ in range(count):
        place = Place(*(0.5 + rng.uniform(-0.5, 0.5, 2) / SIDE))
        thing = Thing(shape, str(rng.choice(list(COLOURS))), str(rng.choice(list(SIZES))), place)
        large = Image.fromarray(draw_scene(Scene((thing,), Ground("white", "plain")), 4 * SIDE))
        pixels = large.rotate(angle * rng.choice([-1, 1]), Image.Resampling.BICUBIC, fillcolor="white").reduce(4)
        names.update(["+".join(seen.shape for seen in find_things(np.asarray(pixels)))])
    return dict(names.most_common())


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
    # With 256 colours it takes a third of the bytes. Shades come in steps, colours stay.
    few = sheet.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=5, dither=Image.Dither.NONE)
    few.save(args.out / "scorer_samples.png", optimize=True)
    return {"judged": len(cells)}


def scenes(args: argparse.Namespace) -> dict[str, Any]:
    """Shows scenes of each category with their prompts and two captions, and a few edits."""
    numbers = range(args.count * len(CATEGORIES))
    records = []
    for number in numbers:
        example = make_example(SEED, "test", number)
        image = draw_png(example.scene, _SHOWN)
        records.append(Record(example.id, "text_to_image", image, example.prompt, example.captions[:2]))
    for edit in (edit for number in EDITED for edit in edits_of(make_example(SEED, "test", number))):
        source, target = draw_png(edit.source, _SHOWN), draw_png(edit.target, _SHOWN)
        records.append(Record("edit", "editing", target, edit.instruction, edit.captions, (source,)))
    sheet = make_contact_sheet(records, columns=len(CATEGORIES))
    sheet.save(args.out / "scenes.png", optimize=True)
    return {"scenes": len(numbers)}


def _in_words(seen: Sequence[Seen]) -> str:
    names = [f"{thing.size} {thing.colour} {thing.shape}" for thing in seen]
    return "; ".join(f"{names.count(name)} {name}" for name in dict.fromkeys(names)) or "nothing"


_SHOWN = 128  # side of the pictures on the sheet of scenes
EDITED = (5, 31)
"""Numbers of scenes whose edits are shown; they have an edit of each kind."""

PARTS = {
    "scenes": (scenes, 2),
    "accuracy": (accuracy, 3000),
    "distortions": (distortions, 1000),
    "unnamed": (unnamed, 500),
    "turned": (turned, 20),
    "samples": (samples, 100),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--out", type=Path, required=True, help="folder for JSON and pictures")
    parser.add_argument("--count", type=int, help="number of examples of a category, of pictures, or of outlines")
    parser.add_argument("--split", choices=SPLITS, default="test", help="split of the scenes of `accuracy`")
    parser.add_argument("--side", type=int, default=SIDE, help="side of the pictures of `accuracy` in pixels")
    args = parser.parse_args()
    run, count = PARTS[args.part]
    args.count = args.count or count
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / f"{args.part}.json").write_text(json.dumps(run(args), indent=1))


if __name__ == "__main__":
    main()
