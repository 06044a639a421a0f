"""Flow matching on scenes from a `scenes_pretrain` checkpoint: the baseline of every comparison on scenes.

A row holds one sample, so all configs `scenes_*` of post-training see the same records with the same random draws in
each step.
"""

from ml_collections import ConfigDict

from configs import scenes_pretrain
from uno_jax.training.state import UNO_TRAINABLE


def get_config() -> ConfigDict:
    """Returns the pre-training config with the method, rows and trainable parameters of post-training."""
    config = scenes_pretrain.get_config()
    config.init_from = "runs/scenes_pretrain"
    config.trainable = UNO_TRAINABLE
    config.steps = 800
    data = config.data
    data.method = "sft"
    data.task_weights = {"text_to_image": 1.0}
    data.rows, data.virtual_shards, data.max_samples_per_row = 64, 8, 1
    data.text_tokens, data.vit_tokens, data.latent_tokens = 16, 0, 64
    config.objective.answer_weight = 0.0
    config.objective.balance.every = 50
    config.optimizer.update(learning_rate=1e-3, final_learning_rate=0.0, warmup_steps=20, ema_decay=0.99)
    config.checkpoint.every = 200
    config.evaluation.every = 200
    config.pictures.every = 400
    return config
