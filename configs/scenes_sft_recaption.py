"""Flow matching on scenes with other captions in place of the prompt, a baseline of `scenes_uno`.

It has the words that UNO's caption loss has, but not the method.
"""

from ml_collections import ConfigDict

from configs import scenes_sft


def get_config() -> ConfigDict:
    """Returns `scenes_sft` with the method `sft_recaption`."""
    config = scenes_sft.get_config()
    config.data.update(method="sft_recaption", text_tokens=40)
    return config
