"""Pre-trains a small unified model on scenes at 64 pixels, on two CPU cores. It can see already.

The vision encoder and the autoencoder come from `python -m uno_jax.pretrain_vision`, and stay frozen. The losses are
flow matching, captions and answers. Most prompts are captions, which say more of a picture. Most of what is read is
clean or noised latents, because the understanding expert must read noised latents to supervise the generation expert
later. The configs `scenes_*` of post-training start from this checkpoint.
"""

from ml_collections import ConfigDict

from configs import openmoji_pretrain

SIDE = 64


def get_config() -> ConfigDict:
    """Returns the settings of pre-training and the model sizes, which the post-training configs share."""
    config = openmoji_pretrain.get_config()
    config.init_from = "runs/scenes_vision"
    config.trainable = ("connector", "decoder", "latent_in", "latent_out", "timestep_embedder")
    config.steps = 8000

    model = config.model
    model.decoder.update(
        hidden_size=128, num_layers=4, num_heads=4, num_kv_heads=2, head_dim=32, mlp_size=384, vocab_size=512
    )
    model.vision.update(hidden_size=96, num_layers=3, num_heads=3, mlp_size=192, scan_unroll=3)
    # One latent token is 8 x 8 pixels: 64 tokens per image with 16 features each.
    model.autoencoder.update(kind="transformer", downsample=8, latent_channels=16, scale=1.0, shift=0.0)
    model.autoencoder.transformer.update(
        hidden_size=96, num_layers=3, num_heads=3, mlp_size=192, patch_size=8, table_side=SIDE // 8, scan_unroll=3
    )
    model.latent_patch_size = 1

    data = config.data
    data.directory = "data/scenes"
    data.task_weights = {"text_to_image": 0.75, "understanding": 0.25}
    data.understanding_share, data.recaption_share, data.latent_share = 0.2, 0.6, 0.7
    data.noised_time_scale = 0.7
    data.rows = 12
    data.virtual_shards = 4
    # Rows of up to four samples: three with latents, one with ViT patches.
    data.text_tokens, data.vit_tokens, data.latent_tokens = 96, 64, 192
    # Pictures for ViT patches and for metaqueries have the same size, because the encoder learns only one.
    data.vit_transform.update(max_side=SIDE, min_side=SIDE, stride=8)
    data.metaquery_transform.update(max_side=SIDE, min_side=SIDE, stride=8)

    # The gradient of captions and answers into the generation expert is many times as large as the flow gradient.
    config.objective.update(answer_weight=0.3, time_shift=4.0)
    config.objective.balance.every = 0
    config.optimizer.update(
        rule="muon", learning_rate=2e-3, final_learning_rate=5e-5, warmup_steps=100, ema_decay=0.998
    )
    config.checkpoint.every = 250
    config.evaluation.update(every=500, records=128)
    config.pictures.update(every=1000, text_scale=2.0, caption_tokens=36)
    return config
