"""Image transforms against the original: sizes, pixels, transparency."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from PIL import Image

from tests.helpers.pixels import to_float
from tests.reference.harness import Check, Reference, close, exact
from uno_jax.data.decoding import decode_rgb
from uno_jax.data.transforms import ImageTransform

UNUSED: dict[str, str] = {}
FILE = "transforms.npz"


def checks(reference: Reference) -> Iterator[Check]:
    sizes = reference.json("transforms.json")
    transforms = {
        name: ImageTransform(*sizes[name], max_pixels=sizes["max_pixels"])
        for name in ("vae", "vit", "real_vae", "real_vit")
    }

    def chw(transform: str, pixels: np.ndarray) -> np.ndarray:
        return to_float(transforms[transform].resize(pixels)).transpose(2, 0, 1)

    columns = sizes["sizes_columns"]
    table = reference.array(FILE, "sizes")
    rows = [dict(zip(columns, (int(x) for x in row), strict=True)) for row in table]
    actual = np.zeros_like(table)
    for i, row in enumerate(rows):
        ours = {name: row[name] for name in ("in_w", "in_h", "img_num")}
        for name, transform in transforms.items():
            # The original lets the images of a sample share the bound.
            shared = replace(transform, max_pixels=transform.max_pixels // row["img_num"])
            ours[f"{name}_w"], ours[f"{name}_h"] = shared.size(row["in_w"], row["in_h"])
        actual[i] = [ours[name] for name in columns]
    yield Check(FILE, "sizes", actual, exact)

    for key in sorted(name for name in reference.names(FILE) if name.endswith("/image")):
        case = key.removesuffix("/image")
        image = reference.array(FILE, key)
        if case == "rgba":
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, "PNG")
            image = decode_rgb(buffer.getvalue(), key)
            yield Check(FILE, f"{case}/rgb", image, exact)
            yield Check(FILE, f"{case}/vae", chw("vae", image), close(absolute=1e-6, relative=0))
            continue
        for name in ("vae", "vit"):
            yield Check(FILE, f"{case}/{name}", chw(name, image), close(absolute=1e-6, relative=0))
        for name in ("real_vae", "real_vit"):
            pixels = chw(name, image)
            yield Check(FILE, f"{case}/{name}_shape", np.array(pixels.shape), exact)
            yield Check(FILE, f"{case}/{name}_crop", pixels[:, :12, :12], close(absolute=1e-6, relative=0))
            yield Check(FILE, f"{case}/{name}_strided", pixels[:, 5::37, 3::41], close(absolute=1e-6, relative=0))
            mean = pixels.mean(axis=(1, 2), dtype=np.float64)
            yield Check(FILE, f"{case}/{name}_mean", mean, close(absolute=2e-5, relative=0))
