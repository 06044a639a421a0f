"""UNO on OpenMoji: captions and metaqueries supervise the generation expert of an `openmoji_pretrain` checkpoint.

The understanding expert is frozen; it reads the noised picture, and its caption and its metaqueries' predictions of
the clean picture's vision features supervise the generation expert. The supervision weights are small: at this scale
a caption's gradient is a hundred times the flow loss's, and fixed weights of 0.25 drown it.
"""

from ml_collections import ConfigDict

from configs import openmoji_pretrain
from uno_jax.training.state import UNO_TRAINABLE


def get_config() -> ConfigDict:
    """The pre-training config with UNO's plan, losses and trainable set."""
    config = openmoji_pretrain.get_config()
    config.init_from = "runs/openmoji_pretrain"
    config.trainable = UNO_TRAINABLE
    config.steps = 400
    config.model.num_metaqueries = 16
    data = config.data
    data.method = "uno"
    data.text_tokens, data.vit_tokens, data.latent_tokens = 48, 36, 192
    data.caption_tokens, data.query_tokens = 48, 48
    config.objective.update(caption_weight=0.02, visual_weight=0.05, answer_weight=0.0)
    config.optimizer.update(learning_rate=1e-3, warmup_steps=20)
    config.checkpoint.every = 100
    config.evaluation.every = 200
    config.pictures.every = 200
    return config
