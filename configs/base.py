"""Every field with its default; other configs change some.

The defaults are the published model's sizes and training settings (AdamW 0.9, 0.95, 1e-15, no weight decay, clipping
at 1.0, condition dropout 0.1 / 0.3 / 0.3). What the fields mean is written at the dataclasses of
`uno_jax.run.config.RunConfig`.
"""

from ml_collections import ConfigDict

from uno_jax.config import to_config_dict
from uno_jax.run.config import RunConfig


def get_config() -> ConfigDict:
    """The defaults of RunConfig."""
    return to_config_dict(RunConfig())
