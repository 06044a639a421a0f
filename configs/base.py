"""All config fields with their defaults.

The defaults are the sizes and training settings of the published model (AdamW with betas 0.9 and 0.95 and epsilon
1e-15, no weight decay, gradient clipping at 1.0, condition dropout 0.1 / 0.3 / 0.3). The dataclasses in
`uno_jax.run.config.RunConfig` document the fields.
"""

from ml_collections import ConfigDict

from uno_jax.config import to_config_dict
from uno_jax.run.config import RunConfig


def get_config() -> ConfigDict:
    """Returns the defaults of `RunConfig`."""
    return to_config_dict(RunConfig())
