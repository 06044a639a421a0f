"""Pre-trains a small unified model on scenes at 64 pixels from random initialisation, on two CPU cores.

The losses are flow matching and captioning, as in `openmoji_pretrain`. Half of the text-to-image records are used for
captions of ViT tokens and of clean or lightly noised latents, because the understanding expert must read such latents
to supervise the generation expert later. The configs `scenes_*` of post-training start from its checkpoint.
"""

from ml_collections import ConfigDict

from configs import openmoji_pretrain

SIDE = 64


def get_config() -> ConfigDict:
    """Returns the settings of pre-training and the model sizes, which the post-training configs share."""
    config = openmoji_pretrain.get_config()
    config.steps = 6000

    model = config.model
    model.decoder.update(
        hidden_size=128, num_layers=4, num_heads=4, num_kv_heads=2, head_dim=32, mlp_size=384, vocab_size=512
    )
    model.vision.update(hidden_size=96, num_layers=2, num_heads=3, mlp_size=192)

    data = config.data
    data.directory = "data/scenes"
    data.task_weights = {"text_to_image": 1.0}
    data.rows = 24
    # Rows of about three samples: two with latents, one with ViT patches.
    data.text_tokens, data.vit_tokens, data.latent_tokens = 64, 64, 128
    # Pictures for ViT patches and for metaqueries have the same size, because the encoder learns only one.
    data.vit_transform.update(max_side=SIDE, min_side=SIDE, stride=8)
    data.metaquery_transform.update(max_side=SIDE, min_side=SIDE, stride=8)

    # The caption's gradient into the generation expert is many times as large as the flow gradient.
    config.objective.answer_weight = 0.03
    config.objective.balance.every = 0
    config.optimizer.update(learning_rate=2e-3, warmup_steps=100, ema_decay=0.998)
    config.checkpoint.every = 250
    config.evaluation.update(every=500, records=128)
    config.pictures.update(every=1000, text_scale=2.0, caption_tokens=36)
    return config
