"""UNO on OpenMoji: captions and metaqueries supervise the generation expert of an `openmoji_pretrain` checkpoint.

The frozen understanding expert reads the noised image. The losses of its caption and of its metaqueries, which predict
the vision features of the clean image, supervise the generation expert. Their weights are small: at this scale the
caption gradient is a hundred times as large as the flow gradient, and a weight of 0.25 would drown it.
"""

from ml_collections import ConfigDict

from configs import openmoji_pretrain
from uno_jax.training.state import UNO_TRAINABLE


def get_config() -> ConfigDict:
    """Returns the pre-training config with the method, losses and trainable parameters of UNO."""
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
