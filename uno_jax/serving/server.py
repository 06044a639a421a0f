"""What all requests of a server share: its model, defaults, limits, queue and counts."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from uno_jax.config import ConfigError
from uno_jax.inference.generate import BATCH, Generator
from uno_jax.inference.picture_settings import PictureSettings
from uno_jax.sampling.text import TextConfig
from uno_jax.serving.metrics import Counts
from uno_jax.serving.queue import JobQueue

MAX_BODY = 2**26
"""Maximum size of a request in bytes."""
MAX_PICTURES = 8
"""Maximum number of pictures in a context."""
MAX_PIXELS = 16_000_000
"""Maximum number of pixels of a picture in a context, before it is resized."""
MAX_COUNT = 10
"""Maximum `n`, as in OpenAI's API."""
MAX_STOPS = 4
"""Maximum number of stop texts, as in OpenAI's API."""
MAX_TIMESTEPS = 500


@dataclass(frozen=True)
class Limits:
    """Limits of a server, validated at construction."""

    queue: int = 64
    """Maximum number of waiting pictures and answers."""
    timeout: float = 300.0
    """Maximum seconds of a request, from its arrival to the end of its reply."""
    batch: int = BATCH
    """Maximum number of pictures or answers in a batch."""
    batch_wait: float = 0.01
    """Seconds to wait for a batch to fill."""

    def __post_init__(self) -> None:
        if self.queue < 1 or self.batch < 1:
            raise ConfigError(f"queue is {self.queue} and batch is {self.batch}: expected at least 1")
        if not 0 < self.timeout <= 86_400:
            raise ConfigError(f"timeout is {self.timeout}: expected seconds above 0, at most a day")
        if not 0 <= self.batch_wait <= 10:
            raise ConfigError(f"batch_wait is {self.batch_wait}: expected 0 to 10 seconds")


@dataclass(frozen=True)
class Server:
    """A model that is served."""

    generator: Generator
    name: str
    """Name of the model, by which requests may ask for it."""
    settings: PictureSettings = field(default_factory=PictureSettings)
    """Settings of pictures that a request leaves out."""
    text: TextConfig = field(default_factory=TextConfig)
    """Sampling of answers that a request leaves out."""
    limits: Limits = field(default_factory=Limits)
    key: str = ""
    """Key that requests must have; empty: none."""
    counts: Counts = field(default_factory=Counts)
    queue: JobQueue = field(default_factory=JobQueue)
    started: int = field(default_factory=lambda: int(time.time()))
