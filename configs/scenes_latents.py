"""Teaches the generation expert of a small model to see, before `scenes_pretrain`.

Latents are read through the states of the generation expert. Texts alone are a poor teacher for it, as they are for a
vision encoder. So the states after its third layer are aligned with the vision encoder's features of the same, lightly
noised picture. Starts from the model of `python -m uno_jax.pretrain_vision`.
"""

from ml_collections import ConfigDict

from configs import scenes_pretrain
from uno_jax.training.state import UNO_TRAINABLE


def get_config() -> ConfigDict:
    """Returns the pre-training config with text-to-image records only, little noise, and mostly the align loss."""
    config = scenes_pretrain.get_config()
    config.init_from = "runs/scenes_vision"
    config.trainable = UNO_TRAINABLE
    config.random_frozen = True  # the understanding expert learns in `scenes_pretrain`
    config.steps = 1500

    data = config.data
    data.method = "sft"
    data.task_weights = {"text_to_image": 1.0}
    # Rows of two samples.
    data.rows = 20
    data.text_tokens, data.vit_tokens, data.latent_tokens = 32, 0, 128

    config.objective.update(flow_weight=0.2, align_weight=1.0, align_time_power=0.0, answer_weight=0.0, time_shift=0.5)
    config.evaluation.every = 0
    config.pictures.every = 0
    return config
