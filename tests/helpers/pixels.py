"""Pixels as numbers, exactly as the original's transforms make them."""

from __future__ import annotations

import numpy as np


def to_float(pixels: np.ndarray) -> np.ndarray:
    """uint8 pixels in [-1, 1]: float32, rounded after every operation, which a compiled program need not do."""
    half = np.float32(0.5)
    return (pixels.astype(np.float32) / np.float32(255) - half) / half
