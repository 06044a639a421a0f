"""Random choices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def one_of(options: Sequence[T], draws: np.random.Generator) -> T:
    """Chooses one of the options, each as likely."""
    return options[int(draws.integers(len(options)))]
