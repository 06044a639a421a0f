"""Settings that several benchmarks share.

Published settings are those of BAGEL's evaluation scripts. They leave the size to the model, whose largest square is
1024 x 1024 for BAGEL. `ours` are the defaults of `sample`, without guidance by images where there are none.
"""

from __future__ import annotations

import dataclasses

from uno_jax.evaluation.benchmark import Preset
from uno_jax.inference.picture_settings import PictureSettings
from uno_jax.sampling.text import TextConfig

# BAGEL's scripts pass no images to guidance, so its scale is 1 in them.
TEXT_TO_IMAGE = PictureSettings(
    timesteps=50, time_shift=3.0, text_scale=4.0, image_scale=1.0, interval=(0.0, 1.0), rescale="global"
)
EDITING = dataclasses.replace(TEXT_TO_IMAGE, image_scale=1.5, rescale="text_channel")
LATE = (0.4, 1.0)
"""The interval of guidance in BAGEL's scripts for WISE and GEdit-Bench."""
THOUGHTS = TextConfig(max_length=2048, temperature=0.3)

OURS = Preset("the defaults of `sample`, without guidance by images", PictureSettings(image_scale=1.0))
OURS_EDITING = Preset("the defaults of `sample`", PictureSettings())
