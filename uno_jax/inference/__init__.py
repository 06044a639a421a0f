"""Generates pictures and text with a trained model: contexts, settings, conversations, prompt files.

The names exported here are the Python API for notebooks. `docs/sampling.md` shows examples.
"""

from uno_jax.inference.generate import Answer, GeneratedImage, Generator, Request, load_generator
from uno_jax.inference.picture_settings import PictureSettings
from uno_jax.inference.thinking import ThinkingConfig
from uno_jax.sampling.text import TextConfig

__all__ = [
    "Answer",
    "GeneratedImage",
    "Generator",
    "PictureSettings",
    "Request",
    "TextConfig",
    "ThinkingConfig",
    "load_generator",
]
