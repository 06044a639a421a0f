"""Pre-trains a tiny unified model on OpenMoji at 64 pixels from random initialisation, in minutes on two CPU cores.

The losses are flow matching and captioning. Captions are of ViT tokens and of clean or lightly noised latents, because
the understanding expert must read such latents to supervise the generation expert later. All parameters are trainable.
`openmoji_uno`, `openmoji_sft` and `openmoji_reca` start from its checkpoint.
"""

from ml_collections import ConfigDict

from configs import base

SIDE = 64


def get_config() -> ConfigDict:
    """Returns the settings of pre-training and the model sizes, which the post-training configs share."""
    config = base.get_config()
    config.trainable = ("",)
    config.steps = 450

    model = config.model
    model.decoder.update(
        hidden_size=192, num_layers=4, num_heads=6, num_kv_heads=2, head_dim=32, mlp_size=512, vocab_size=2048
    )
    model.decoder.context_length = 2048
    model.vision.update(hidden_size=128, num_layers=2, num_heads=4, mlp_size=256, patch_size=8, table_side=SIDE // 8)
    # Layers are unrolled: on a CPU a loop's copies of stacked activations take a third of the step time.
    model.decoder.scan_unroll, model.vision.scan_unroll = 4, 2
    # One latent token is 8 x 8 pixels: 64 tokens per image with 192 features each.
    model.autoencoder.update(kind="pixel", downsample=4, latent_channels=3 * 4**2, scale=1.0, shift=0.0)
    model.latent_patch_size = 2
    model.max_latent_size = SIDE // 8
    model.num_metaqueries = 0
    # Within minutes, a model of this size learns shapes only with x_0 prediction and high noise.
    model.prediction = "x0"
    config.objective.time_shift = 4.0

    data = config.data
    data.directory = "data/openmoji"
    data.method = "pretrain"
    # Edits are three quarters of the records, but the model should learn text to image first.
    data.task_weights = {"text_to_image": 0.7, "editing": 0.3}
    data.rows = 8
    data.virtual_shards = 8
    # Short rows of two or three samples, because dense attention is quadratic in the row length.
    data.text_tokens, data.vit_tokens, data.caption_tokens, data.query_tokens, data.latent_tokens = 56, 72, 0, 0, 192
    data.vae_transform.update(max_side=SIDE, min_side=SIDE, stride=8)
    data.vit_transform.update(max_side=48, min_side=48, stride=8)
    data.metaquery_transform.update(max_side=32, min_side=32, stride=8)

    config.objective.answer_weight = 0.1
    config.objective.balance.every = 100
    config.optimizer.update(learning_rate=1e-3, schedule="cosine", warmup_steps=50, beta2=0.99)
    config.checkpoint.every = 150
    config.evaluation.every = 150
    config.pictures.update(every=150, timesteps=16, text_scale=2.5, caption_tokens=32)
    return config
