"""Speed of the input pipeline: pictures decoded, resized and packed per second of one core, and the padding of rows.

    python benchmarks/input_pipeline.py                        64, 512 and 1024 px, stored pictures up to 3000 px
    python benchmarks/input_pipeline.py --side=512 --buckets=4
    python benchmarks/input_pipeline.py --side=512 --workers=2    processes that make batches, on as many cores
    python benchmarks/input_pipeline.py --side=1024 --stored=3000 --reduced_jpeg    pictures of 3000 x 2250
    python benchmarks/input_pipeline.py --config=bagel_7b_uno_512 --edits=0.25    the rows of a config

Stored pictures are JPEG files with random smooth content and fine texture, with long sides of 1 to 2.5 times the target
and aspect ratios of 1:3 to 3:1, evenly spread on a logarithmic scale. Each has a prompt of 5 to 60 words and two
captions of 10 to 120 words. The method is that of `configs/bagel_7b_uno.py`, and rows have the regions in `REGIONS_OF`,
or all is as in a config of the folder `configs`. With `--reduced_jpeg`, the table has the mean absolute difference that
it makes to resized pixels, of 255. Seconds are CPU seconds of this process, and wall-clock seconds with workers. The
last lines are a table.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import io
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from absl import flags
from PIL import Image

sys.path.append(str(Path(__file__).parent.parent))  # for a script only its own folder is on the path

from configs import bagel_7b_uno
from uno_jax.batch import REGIONS
from uno_jax.config import from_config_dict
from uno_jax.data.config import DataConfig
from uno_jax.data.decoding import decode_rgb
from uno_jax.data.mixture import open_mixture
from uno_jax.data.record import Record
from uno_jax.data.records import write_records
from uno_jax.data.tokenizer import train_tokenizer
from uno_jax.data.transforms import ImageTransform
from uno_jax.data.workers import open_batches
from uno_jax.models.config import training_layout
from uno_jax.run.config import RunConfig

WORDS = [f"word{i}" for i in range(400)]
# Text, caption, query and latent tokens of a row, for several pictures of up to `side` pixels.
REGIONS_OF = {64: (1536, 4096, 256, 128), 512: (1280, 3072, 2048, 6144), 1024: (1024, 2560, 1536, 16384)}
RECORDS, BATCHES, TEXTURE = 48, 6, 12


def picture(rng: np.random.Generator, side: int, stored: int, texture: int) -> bytes:
    """Returns a JPEG file of random content, aspect ratio and size, or of `stored` pixels and 4:3.

    The content is smooth, and each pixel is lighter or darker by up to `texture` of 255.
    """
    aspect = 4 / 3 if stored else np.exp(rng.uniform(-np.log(3), np.log(3)))
    longest = stored or int(side * rng.uniform(1.0, 2.5))
    width, height = (longest, max(1, round(longest / aspect))) if aspect > 1 else (round(longest * aspect), longest)
    smooth = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    pixels = np.asarray(smooth, np.int16) + rng.integers(-texture, texture + 1, (height, width, 1))
    file = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


def record(number: int, side: int, stored: int = 0, edits: float = 0.0, texture: int = TEXTURE) -> Record:
    """Returns a record with a picture and texts of random lengths. A share of the records are edits."""
    rng = np.random.default_rng(number)

    def text(least: int, most: int) -> str:
        return " ".join(rng.choice(WORDS, int(rng.integers(least, most + 1))))

    captions = (text(10, 120), text(10, 120))
    made = Record(f"{number:06d}", "text_to_image", picture(rng, side, stored, texture), text(5, 60), captions)
    if rng.random() >= edits:
        return made
    return dataclasses.replace(made, task="editing", sources=(picture(rng, side, stored, texture),))


def data_config(side: int, options: argparse.Namespace, folder: Path) -> tuple[RunConfig, DataConfig]:
    """Returns the run config, and the data config: of a config, or for a side of the target."""
    workers = options.workers
    rows = {"directory": str(folder), "task_weights": {}, "workers": workers, "reduced_jpeg": options.reduced_jpeg}
    rows |= {"rows": 4 * max(workers, 1), "virtual_shards": max(workers, 1)}
    if options.config:
        named = importlib.import_module(f"configs.{options.config}")
        config = from_config_dict(named.get_config(), RunConfig)
        return config, dataclasses.replace(config.data, **rows)
    config = from_config_dict(bagel_7b_uno.get_config(), RunConfig)
    text, caption, query, latent = REGIONS_OF[side]
    vision = ImageTransform(224, 14, 14) if side > 64 else ImageTransform(56, 14, 14)
    data = dataclasses.replace(
        config.data,
        **rows,
        text_tokens=text,
        vit_tokens=0,
        caption_tokens=caption,
        query_tokens=query,
        latent_tokens=latent,
        packing_bins=16,
        vae_transform=ImageTransform(side, side // 2, 16, buckets=options.buckets),
        vit_transform=ImageTransform(224, 14, 14) if options.stored else config.data.vit_transform,
        metaquery_transform=vision,
    )
    return config, data


def seconds_of(work: Callable[[], object]) -> float:
    """Returns the CPU seconds of a call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def measure(side: int, options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Returns pictures per second of each stage, and the padding of each region."""
    made = (options.stored, options.edits, options.texture)
    records = [record(number, side, *made) for number in range(options.records)]
    write_records(folder, "pictures", {"train": lambda: records}, description="made up", license_text="none")
    tokenizer = train_tokenizer([" ".join(WORDS)] * 2, 2048, folder / "tokenizer")
    config, data = data_config(side, options, folder)
    inputs = data.inputs(tokenizer)
    decoded: list[np.ndarray] = []
    decoding = seconds_of(lambda: decoded.extend(inputs.picture(r, 0) for r in records))
    stored = [inputs.stored_size(r, 0) for r in records]
    resized: list[np.ndarray] = []
    resizing = seconds_of(lambda: resized.extend(map(data.vae_transform.resize, decoded, stored)))
    difference = {"difference": float(np.mean(list(map(difference_of, records, resized, [data] * len(records)))))}
    batches = open_batches(open_mixture(data, "train"), data, training_layout(config.model), tokenizer)
    next(batches)
    start, cpu = time.perf_counter(), time.process_time()
    made = [next(batches) for _ in range(BATCHES)]
    whole = time.perf_counter() - start if options.workers else time.process_time() - cpu
    batches.close()
    samples = sum(packed.stats["samples"] for packed in made)
    padding = {
        f"padding {region}": float(np.mean([packed.stats[f"padding/{region}"] for packed in made]))
        for region in REGIONS
        if data.capacities[region]
    }
    sizes = {pixels.shape for pixels in resized}
    return {
        "decoded/s": len(records) / decoding,
        "resized/s": len(records) / resizing,
        "packed/s": samples / whole,
        "sizes": float(len(sizes)),
        **(difference if options.reduced_jpeg else {}),
        **padding,
    }


def difference_of(record: Record, resized: np.ndarray, data: DataConfig) -> float:
    """Returns the mean absolute difference of a resized picture from the one that is decoded at its own size."""
    whole = data.vae_transform.resize(decode_rgb(record.image, record.id)) if data.reduced_jpeg else resized
    return float(np.abs(whole.astype(np.int16) - resized).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--side", type=int, choices=sorted(REGIONS_OF), help="longest side of the target; all without it"
    )
    parser.add_argument("--buckets", type=int, default=0, help="aspect ratios of the target; 0 = any")
    parser.add_argument("--workers", type=int, default=0, help="processes that make batches")
    parser.add_argument("--stored", type=int, default=0, help="long side of stored pictures of 4:3")
    parser.add_argument("--texture", type=int, default=TEXTURE, help="strength of the texture of pictures, of 255")
    parser.add_argument("--edits", type=float, default=0.0, help="share of the records that are edits")
    parser.add_argument("--records", type=int, default=RECORDS, help="number of records")
    parser.add_argument("--config", help="name of a config whose transforms and rows are measured")
    parser.add_argument("--reduced_jpeg", action="store_true", help="decode JPEG files at a reduced size")
    options = parser.parse_args()
    flags.FLAGS.mark_as_parsed()  # grain reads them
    rows = []
    if options.config:
        options.side = data_config(0, options, Path())[1].vae_transform.max_side
    for side in (options.side,) if options.side else REGIONS_OF:
        with tempfile.TemporaryDirectory() as folder:
            rows.append({"side": side, **measure(side, options, Path(folder) / "data")})
    print(" | ".join(rows[0]))
    for row in rows:
        print(" | ".join(f"{value:.3g}" for value in row.values()))


if __name__ == "__main__":
    main()
