"""Pictures as a judge sees them."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from uno_jax.evaluation.benchmark import BenchmarkError
from uno_jax.process.files import atomic_file


def check_picture(file: Path) -> None:
    """Requires a file to be a whole picture, as far as its headers and checksums tell.

    Raises:
      BenchmarkError: it is missing or damaged.
    """
    try:
        with Image.open(file) as image:
            image.verify()
    except FileNotFoundError as error:
        raise BenchmarkError(f"{file}: there is no such picture; call `evaluate generate` again") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BenchmarkError(
            f"{file} is empty, or no whole picture; remove it, and call `evaluate generate` again"
        ) from error


def write_smaller(file: Path, to: Path, side: int) -> Path:
    """Writes a picture as JPEG whose longer side has at most `side` pixels, and returns its file.

    Raises:
      BenchmarkError: the picture is missing or damaged.
    """
    check_picture(file)
    with Image.open(file) as image:
        image.thumbnail((side, side))
        to.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(to) as temporary:
            image.convert("RGB").save(temporary, "JPEG")
    return to
