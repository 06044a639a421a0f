"""How int8 weights change pictures: those of scenes, from the same noise, judged by the exact scorer.

    python benchmarks/int8_weights.py --checkpoint=pretrained/scenes_base

Draws prompts of the test split with the weights as they are in float32, rounded to int8, and in bfloat16. Differences
are from the first, in colour values (0 to 255). Prints a table.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

sys.path.append(str(Path(__file__).parent.parent))  # for a script only its own folder is on the path

from uno_jax.data.scenes.generate import Example, make_example
from uno_jax.data.scenes.score import judge
from uno_jax.inference.generate import load_generator
from uno_jax.inference.picture_settings import PictureSettings
from uno_jax.process.memory import keep_freed_memory

FORMATS: dict[str, dict[str, Any]] = {
    "float32": {"dtype": "float32"},
    "float32, int8 weights": {"dtype": "float32", "weights": "int8"},
    "bfloat16": {"dtype": "bfloat16"},
}


def draw(checkpoint: str, how: dict[str, Any], examples: list[Example], args: argparse.Namespace) -> tuple[Any, float]:
    """Returns pictures `[prompts, height, width, 3]`, and the MiB of the parameters without the autoencoder."""
    generator = load_generator(checkpoint, **how)
    settings = PictureSettings(
        timesteps=args.timesteps, text_scale=args.text_scale, image_scale=1.0, interval=(0.0, 1.0), rescale_min=1.0
    )
    prompts, seeds = [example.prompt for example in examples], [example.number for example in examples]
    drawn = generator.generate_images(prompts, settings, seeds=seeds, batch_size=args.batch)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(generator.reader.model.params)) / 2**20
    return np.stack([np.asarray(picture.image).astype(np.int32) for picture in drawn]), size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, help="a model of scenes; see python -m uno_jax.sample --help")
    parser.add_argument("--prompts", type=int, default=120)
    parser.add_argument("--timesteps", type=int, default=25)
    parser.add_argument("--text_scale", type=float, default=2.0)
    parser.add_argument("--batch", type=int, default=20)
    args = parser.parse_args()
    keep_freed_memory()
    examples = [make_example(0, "test", number) for number in range(args.prompts)]
    drawn = {name: draw(args.checkpoint, how, examples, args) for name, how in FORMATS.items()}
    first, _ = drawn["float32"]
    right = {
        name: np.array(
            [judge(x.facts, x.total, image.astype(np.uint8)).right for x, image in zip(examples, images, strict=True)]
        )
        for name, (images, _) in drawn.items()
    }
    print("| | MiB | drawn right | only then | no longer | difference: mean | median picture | most different 5% |")
    print("|---|---|---|---|---|---|---|---|")
    for name, (images, size) in drawn.items():
        each = np.abs(images - first).mean(axis=(1, 2, 3))
        gained, lost = int((right[name] & ~right["float32"]).sum()), int((right["float32"] & ~right[name]).sum())
        most = np.sort(each)[-max(1, len(each) // 20) :].mean()
        cells = (name, f"{size:.2f}", f"{right[name].sum()} of {len(examples)}", str(gained), str(lost))
        print(f"| {' | '.join(cells)} | {each.mean():.2f} | {np.median(each):.2f} | {most:.2f} |")


if __name__ == "__main__":
    main()
