"""Using a trained model: what is read before a picture or a text is made, settings, conversations, prompt files.

The Python face, for notebooks, is what is named here; `docs/sampling.md` shows it.
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
