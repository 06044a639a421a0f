"""Conversion of pixels to floats, exactly as in BAGEL's transforms."""

from __future__ import annotations

import numpy as np


def to_float(pixels: np.ndarray) -> np.ndarray:
    """Scales uint8 pixels to float32 in [-1, 1], rounded after every operation. Compiled programs may round less."""
    half = np.float32(0.5)
    return (pixels.astype(np.float32) / np.float32(255) - half) / half
